"""MAETok's official checkpoints: released autoencoder or training module, with rotary or absolute positions.

[0] Chen et al., Masked Autoencoders Are Effective Tokenizers for Diffusion Models, 2025, https://arxiv.org/abs/2502.03444
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ldbench.official import Converted, Entry, count_blocks, rename, shape, validate_keys, validate_setting

if TYPE_CHECKING:
    from torch import Tensor

SOURCE = "https://github.com/Hhhhhhao/continuous_tokenizer"
LICENCE = "none given in the repository; its maintainer named MIT or Apache-2.0"
CITATION = "Chen et al., Masked Autoencoders Are Effective Tokenizers for Diffusion Models, ICML 2025, arXiv:2502.03444"
WHERE = "Download config.json and model.safetensors of {} from the Hugging Face hub into one folder."
HUBS = {"maetok_b_128": "MAETok/maetok-b-128", "maetok_b_128_512": "MAETok/maetok-b-128-512"}
ENTRIES = {
    name: Entry(source=SOURCE, licence=LICENCE, citation=CITATION, where=WHERE.format(hub), hub=hub, averaged=True)
    for name, hub in HUBS.items()
}

HEAD_WIDTH = 64  # of every ViT of the official code; it cannot be inferred from the tensors
ROPE_THETA = 10.0  # only for the initialization of the frequencies, which the file holds

SETTINGS = {  # key of config.json -> our keyword
    "num_latent_tokens": "num_tokens",
    "codebook_embed_dim": "latent_channels",
    "image_size": "image_size",
    "enc_patch_size": "patch_size",
    "dec_patch_size": "patch_size",
}
RENAMED = {  # theirs -> ours, by prefix
    "encoder.latent_tokens": "encoder.latent_tokens",
    "encoder.latent_pos_embed": "encoder.latent_positions",
    "encoder.mask_token": "encoder.mask_token",
    "encoder.freqs": "encoder.rotary.frequencies",
    "encoder.model.cls_token": "encoder.class_token",
    "encoder.model.pos_embed": "encoder.positions",
    "encoder.model.patch_embed": "encoder.patch_embed",
    "encoder.model.blocks": "encoder.transformer.blocks",
    "encoder.model.norm": "encoder.transformer.norm",
    "quant_conv": "encoder.to_latent",
    "post_quant_conv": "decoder.query.from_latent",
    "decoder.mask_token": "decoder.query.query",
    "decoder.latent_pos_embed": "decoder.query.latent_positions",
    "decoder.freqs": "decoder.query.rotary.frequencies",
    "decoder.model.cls_token": "decoder.query.class_token",
    "decoder.model.pos_embed": "decoder.query.positions",
    "decoder.model.blocks": "decoder.query.blocks",
    "decoder.to_pixel.model": "decoder.to_pixels",
}
IN_A_BLOCK = {".ls1.": ".scale1.", ".ls2.": ".scale2.", ".adaLN_modulation.1.": ".modulation."}
BLOCK = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
UNUSED = ("decoder.model.patch_embed.", "decoder.model.norm.adaLN_modulation.")  # in the file, without effect
COORDINATES = ("freqs_t_x", "freqs_t_y")  # the integer grid, which is computed here
AUXILIARY = (  # of the training module
    "decoder_",
    "post_quant_conv_",
    "to_pixel_",
    "hog_generator.",
    "projection.",
    "repa_model.",
    "clip_model.",
)


def convert(name: str, state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Converted:
    """MAETok's keywords, inferred from the tensors, and its state dict under our names.

    Auxiliary decoders, teachers and unused tensors of a training checkpoint are dropped. A file without
    `encoder.mask_token` gets zeros, which only masked passes read. `settings` (its config.json) may not contradict the
    tensors. Raises ValueError for anything missing, unknown or contradictory.
    """
    state = {
        key: value
        for key, value in state.items()
        if not key.startswith((*UNUSED, *AUXILIARY)) and not key.endswith(COORDINATES)
    }
    rope = "encoder.freqs" in state
    if rope:
        state.pop("decoder.model.pos_embed", None)  # unused with rotary positions
    depth, decoder_depth = (count_blocks(state, f"{part}.model.blocks") for part in ("encoder", "decoder"))
    expected = expected_keys(depth, decoder_depth, rope=rope, scaled="encoder.model.blocks.0.ls1.gamma" in state)
    optional = {"encoder.mask_token", *(["decoder.model.cls_token"] if rope else [])}
    validate_keys(name, ENTRIES[name], missing=expected - state.keys(), unknown=state.keys() - expected - optional)
    width, decoder_width = shape(state, "encoder.model.cls_token", 3)[-1], shape(state, "decoder.mask_token", 3)[-1]
    patch_size = shape(state, "encoder.model.patch_embed.proj.weight", 4)[-1]
    channels = shape(state, "post_quant_conv.weight", 2)[1]
    state.setdefault("encoder.mask_token", state["encoder.model.cls_token"].new_zeros(1, 1, width))
    keywords = {
        "image_size": patch_size * math.isqrt(shape(state, "encoder.model.pos_embed", 3)[1] - 1),
        "patch_size": patch_size,
        "num_tokens": shape(state, "encoder.latent_tokens", 3)[1],
        "latent_channels": channels,
        "width": width,
        "depth": depth,
        "num_heads": width // HEAD_WIDTH,
        "decoder_width": decoder_width,
        "decoder_depth": decoder_depth,
        "decoder_num_heads": decoder_width // HEAD_WIDTH,
        "mlp_ratio": shape(state, "encoder.model.blocks.0.mlp.fc1.weight", 2)[0] / width,
        "latent_head": "kl" if shape(state, "quant_conv.weight", 2)[0] == 2 * channels else "ae",
        "positions": "rope" if rope else "absolute",
        "rope_theta": ROPE_THETA,
        "layer_scale": 1e-5 if "encoder.model.blocks.0.ls1.gamma" in state else None,
        "modulation_start": "zero",
        "linear_std": 0.02,
        "token_std": 0.02,
        "decoder_class_token": "decoder.model.cls_token" in state,
        "to_pixels": "linear",
    }
    for key, keyword in SETTINGS.items():
        validate_setting(settings, key, keywords[keyword])
    for part, heads in (("encoder", width // HEAD_WIDTH), ("decoder", decoder_width // HEAD_WIDTH)) if rope else ():
        state[f"{part}.freqs"] = split_heads(state, f"{part}.freqs", heads)
    return Converted(
        "tokenizer", "maetok", keywords, {rename(key, RENAMED, IN_A_BLOCK): value for key, value in state.items()}
    )


def expected_keys(depth: int, decoder_depth: int, *, rope: bool, scaled: bool) -> set[str]:
    """The names of all tensors of a checkpoint."""
    layers = {
        "encoder.model.patch_embed.proj",
        "encoder.model.norm",
        "quant_conv",
        "post_quant_conv",
        "decoder.to_pixel.model",
    }
    layers |= {f"encoder.model.blocks.{i}.{part}" for i in range(depth) for part in (*BLOCK, "norm1", "norm2")}
    layers |= {
        f"decoder.model.blocks.{i}.{part}" for i in range(decoder_depth) for part in (*BLOCK, "adaLN_modulation.1")
    }
    tensors = {
        "encoder.latent_tokens",
        "encoder.latent_pos_embed",
        "encoder.model.cls_token",
        "encoder.model.pos_embed",
    }
    tensors |= {"decoder.mask_token", "decoder.latent_pos_embed"}
    tensors |= {"encoder.freqs", "decoder.freqs"} if rope else {"decoder.model.pos_embed", "decoder.model.cls_token"}
    if scaled:
        tensors |= {f"encoder.model.blocks.{i}.{part}.gamma" for i in range(depth) for part in ("ls1", "ls2")}
    return tensors | {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}


def split_heads(state: Mapping[str, Tensor], key: str, num_heads: int) -> Tensor:
    """Rotary frequencies (2, depth, heads * head_dim / 2) with an axis for the heads."""
    axes = shape(state, key, 3)
    if axes[0] != 2 or axes[2] != num_heads * HEAD_WIDTH // 2:
        raise ValueError(
            f"{key} has the shape {axes}. "
            f"Expected (2, depth, {num_heads * HEAD_WIDTH // 2}), for {num_heads} heads of width {HEAD_WIDTH}."
        )
    return state[key].unflatten(-1, (num_heads, HEAD_WIDTH // 2))
