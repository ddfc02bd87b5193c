"""RAE in the layout of diffusers' AutoencoderRAE, as our own family: a folder with config.json and weights.

[0] Zheng et al., Diffusion Transformers with Representation Autoencoders, 2025, https://arxiv.org/abs/2510.11690
[1] Hugging Face, Diffusers, https://huggingface.co/docs/diffusers/api/models/autoencoder_rae
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ldbench.official import Converted, Entry, count_blocks, get_count, get_number, shape, validate_keys
from ldbench.official.transformers_names import timm_name

if TYPE_CHECKING:
    from torch import Tensor

    from ldbench.core.latent_stats import LatentStats

ENTRIES = {
    "rae": Entry(
        source="https://github.com/bytetriper/RAE",
        licence="MIT",
        citation="Zheng et al., Diffusion Transformers with Representation Autoencoders, arXiv 2025, arXiv:2510.11690",
        where="Give a folder of diffusers' AutoencoderRAE, such as that of nyu-visionx/RAE-dinov2-wReg-base-ViTXL-n08.",
    )
}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {  # encoder_type -> timm's name, settings
    "dinov2": ("vit_base_patch14_reg4_dinov2", {}),
    "siglip2": ("vit_base_patch16_siglip_256", {"act_layer": "gelu_tanh"}),
    "mae": ("vit_base_patch16_224", {"norm_eps": 1e-12}),
}
HEAD_WIDTH = 64  # of all encoders
STD_EPS = 1e-5  # of the normalization of latents
UNUSED = (
    "decoder_pos_embed",
    "encoder.embeddings.mask_token",
    "encoder.norm.",
    "encoder.head.",
)  # computed, or of no effect
BUFFERS = ("encoder_mean", "encoder_std", "_latents_mean", "_latents_std")
DECODER = {  # theirs -> ours
    "decoder_embed": "embed",
    "trainable_cls_token": "class_token",
    "decoder_layers": "transformer.blocks",
    "decoder_norm": "transformer.norm",
    "decoder_pred": "to_pixels",
}
IN_A_BLOCK = {  # of the decoder, in diffusers' and in the official names
    ".attention.to_out.0.": ".attn.proj.",
    ".attention.output.dense.": ".attn.proj.",
    ".attention.to_q.": ".attn.query.",
    ".attention.to_k.": ".attn.key.",
    ".attention.to_v.": ".attn.value.",
    ".attention.attention.": ".attn.",
    ".intermediate.dense.": ".mlp.fc1.",
    ".output.dense.": ".mlp.fc2.",
    ".layernorm_before.": ".norm1.",
    ".layernorm_after.": ".norm2.",
}
LAYERS = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
TOKENS = "encoder.tokens.vit"


def convert(name: str, state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Converted:
    """RAE's keywords and its state dict under our names.

    Sizes are read off the tensors; the encoder's kind, input size and pixel scale and the decoder's heads off
    config.json. Raises ValueError for anything missing or unknown.
    """
    kind = settings.get("encoder_type", "dinov2")
    if kind not in ARCHITECTURES:
        raise ValueError(f"config.json has the encoder_type {kind!r:.60}. Known: {', '.join(ARCHITECTURES)}.")
    named = joined({our_name(key): value for key, value in state.items()})
    named = {key: value for key, value in named.items() if not key.startswith(UNUSED)}
    named = {key.replace("encoder.", f"{TOKENS}.", 1): value for key, value in named.items()}
    known: dict[str, Tensor] = {key: named.pop(key) for key in BUFFERS if key in named}
    depth, decoder_depth = count_blocks(named, f"{TOKENS}.blocks"), count_blocks(named, "decoder.transformer.blocks")
    expected = expected_keys(kind, depth, decoder_depth)
    if not any(key.startswith(TOKENS) for key in named):
        raise ValueError("These tensors have no encoder, only a decoder. Give a folder of diffusers' AutoencoderRAE.")
    validate_keys(name, ENTRIES[name], missing=expected - named.keys(), unknown=named.keys() - expected)
    width, _, patch, _ = shape(named, f"{TOKENS}.patch_embed.proj.weight", 4)
    size = get_count(settings, "encoder_input_size", 224)
    side, architecture = size // patch, ARCHITECTURES[kind]
    patch_size = math.isqrt(shape(named, "decoder.to_pixels.weight", 2)[0] // 3)
    decoder_width = shape(named, "decoder.embed.weight", 2)[0]
    place_positions(named, kind, side)
    named |= statistics(known, settings, side, width)
    keywords = {
        "image_size": patch_size * side,
        "patch_size": patch_size,
        "encoder_architecture": architecture[0],
        "encoder_settings": {
            **architecture[1],
            "patch_size": patch,
            "embed_dim": width,
            "depth": depth,
            "num_heads": max(1, width // HEAD_WIDTH),
            "mlp_ratio": shape(named, f"{TOKENS}.blocks.0.mlp.fc1.weight", 2)[0] / width,
        },
        "encoder_size": size,
        **pixel_scale(known, settings),
        "decoder_width": decoder_width,
        "decoder_depth": decoder_depth,
        "decoder_num_heads": get_count(settings, "decoder_num_attention_heads", 16),
        "decoder_mlp_width": shape(named, "decoder.transformer.blocks.0.mlp.fc1.weight", 2)[0],
    }
    return Converted("tokenizer", "rae", keywords, named)


def latent_stats(settings: Mapping[str, Any], state: Mapping[str, Tensor] | None) -> LatentStats:
    """0 and 1: it normalizes inside."""
    from ldbench.core.latent_stats import LatentStats

    return LatentStats(0.0, 1.0)


def reads_state(settings: Mapping[str, Any]) -> bool:
    """Whether the statistics of latents stand among the tensors: they are not needed."""
    return False


def our_name(key: str) -> str:
    """The name of a tensor here, with queries, keys and values apart."""
    if key.startswith("encoder."):
        return f"encoder.{timm_name(key.removeprefix('encoder.'))}"
    key = key.removeprefix("decoder.")
    for theirs, ours in DECODER.items():
        if key == theirs or key.startswith(f"{theirs}."):
            key = f"decoder.{ours}{key.removeprefix(theirs)}"
            break
    for theirs, ours in IN_A_BLOCK.items():
        key = key.replace(theirs, ours)
    return key


def joined(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict in which queries, keys and values are one tensor."""
    import torch

    whole = {}
    for key, value in state.items():
        if ".attn.query." in key:
            parts = [key.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
            if all(part in state for part in parts):
                whole[key.replace(".query.", ".qkv.")] = torch.cat([state[part] for part in parts])
        elif ".attn.key." not in key and ".attn.value." not in key:
            whole[key] = value
    return whole


def expected_keys(kind: str, depth: int, decoder_depth: int) -> set[str]:
    """The names of all tensors of an encoder and a decoder."""
    layers = {f"{TOKENS}.patch_embed.proj", "decoder.embed", "decoder.transformer.norm", "decoder.to_pixels"}
    tensors = {f"{TOKENS}.pos_embed", "decoder.class_token"}
    for blocks, count in ((f"{TOKENS}.blocks", depth), ("decoder.transformer.blocks", decoder_depth)):
        layers |= {f"{blocks}.{i}.{layer}" for i in range(count) for layer in LAYERS}
    if kind != "siglip2":
        tensors.add(f"{TOKENS}.cls_token")
    if kind == "dinov2":
        tensors.add(f"{TOKENS}.reg_token")
        tensors |= {f"{TOKENS}.blocks.{i}.ls{scale}.gamma" for i in range(depth) for scale in (1, 2)}
    return tensors | {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}


def place_positions(state: dict[str, Tensor], kind: str, side: int) -> None:
    """Resamples the encoder's positions to its grid; DINOv2's of the class token is added to the token, as in timm."""
    from ldbench.layers.pretrained_encoders import resample_positions

    table = state[f"{TOKENS}.pos_embed"]
    if table.ndim == 2:
        table = table.unsqueeze(0)
    if kind == "dinov2":
        state[f"{TOKENS}.cls_token"] = state[f"{TOKENS}.cls_token"] + table[:, :1]
        table = table[:, 1:]
    length = side * side + (kind == "mae")
    state[f"{TOKENS}.pos_embed"] = resample_positions(table.float(), (side, side), length, antialias=kind == "dinov2")


def statistics(given: Mapping[str, Tensor], settings: Mapping[str, Any], side: int, channels: int) -> dict[str, Tensor]:
    """The statistics of the encoder's tokens, for each position and channel, with the scaling factor in the deviation.

    Raises ValueError for those of other latents.
    """
    import torch

    found = {}
    for name, default in (("mean", 0.0), ("std", 1.0)):
        stated = settings.get(f"latents_{name}")
        value = given.get(f"_latents_{name}", torch.tensor(default if stated is None else stated)).float()
        while value.ndim > 3:
            value = value.squeeze(0) if value.shape[0] == 1 else value.flatten(0, 1)
        if value.ndim == 1 and len(value) > 1:
            value = value.view(-1, 1, 1)
        try:
            found[f"latent_{name}"] = value.expand(channels, side, side).flatten(1).T.contiguous()
        except RuntimeError as error:
            raise ValueError(
                f"latents_{name} has the shape {tuple(value.shape)}, and these latents ({channels}, {side}, {side})."
            ) from error
    factor = get_number(settings, "scaling_factor", 1.0)
    if factor != 1:
        found["latent_std"] = (found["latent_std"] + STD_EPS) / factor - STD_EPS
    return found


def pixel_scale(given: Mapping[str, Tensor], settings: Mapping[str, Any]) -> dict[str, list[float]]:
    """Means and deviations of pixels, of the tensors or of config.json."""
    scale = {}
    for name, default in (("mean", [0.485, 0.456, 0.406]), ("std", [0.229, 0.224, 0.225])):
        tensor = given.get(f"encoder_{name}")
        stated = settings.get(f"encoder_norm_{name}")
        scale[f"pixel_{name}"] = tensor.flatten().tolist() if tensor is not None else list(stated or default)
    return scale
