"""Names of the tensors of vision transformers in the package transformers, whose versions differ, and in timm."""

import re

QKV = {"q": "query", "k": "key", "v": "value"}
PARTS = (  # theirs (a pattern) -> timm's; queries, keys and values are one tensor in timm
    (r"^vision_model\.", ""),
    (r"^(?:encoder\.)?layers?\.(\d+)\.", r"blocks.\1."),
    (r"\.(?:attention\.attention|self_attn|attention)\.(query|key|value)\.", r".attn.\1."),
    (r"\.(?:self_attn|attention)\.([qkv])_proj\.", lambda found: f".attn.{QKV[found[1]]}."),
    (r"\.(?:attention\.output\.dense|attention\.o_proj|self_attn\.out_proj)\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.(?:layernorm_before|layer_norm1)\.", ".norm1."),
    (r"\.(?:layernorm_after|layer_norm2)\.", ".norm2."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    (r"^(?:post_layernorm|layernorm)\.", "norm."),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.(?:position_embeddings|position_embedding\.weight)$", "pos_embed"),
    (r"^embeddings\.(?:patch_embeddings\.projection|patch_embedding)\.", "patch_embed.proj."),
)


def timm_name(key: str) -> str:
    """The name in timm of a tensor of DINOv2, SigLIP or MAE in any version of transformers; others stay."""
    for pattern, name in PARTS:
        key = re.sub(pattern, name, key)
    return key
