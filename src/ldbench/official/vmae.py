"""VMAE's official checkpoints: training layout (mask token, LPIPS weights inside) and inference layout.

[0] Lee et al., Latent Diffusion Models with Masked AutoEncoders (LDMAE), 2025, https://arxiv.org/abs/2507.09984
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ldbench.official import Converted, Entry, count_blocks, rename, shape, validate_keys

if TYPE_CHECKING:
    from torch import Tensor

ENTRIES = {
    "vmae_f8d16": Entry(
        source="https://github.com/isno0907/ldmae",
        licence="none given in the repository; its MAE base is CC-BY-NC 4.0",
        citation="Lee et al., Latent Diffusion Models with Masked AutoEncoders, ICCV 2025, arXiv:2507.09984",
        where="Download vmaef8d16.pth from the link in its repository's README.",
    )
}
NUM_HEADS = {"vmae_f8d16": 12}  # they cannot be inferred from the tensors

RENAMED = {  # theirs -> ours, by prefix
    "pos_embed": "encoder.positions",
    "decoder_pos_embed": "decoder.positions",
    "mask_token": "decoder.mask_token",
    "to_latent": "encoder.to_latent",
    "from_latent": "decoder.from_latent",
    "patch_embed": "encoder.patch_embed",
    "blocks": "encoder.transformer.blocks",
    "norm": "encoder.transformer.norm",
    "decoder_embed": "decoder.embed",
    "decoder_blocks": "decoder.transformer.blocks",
    "decoder_norm": "decoder.transformer.norm",
    "decoder_pred.linear_pred": "decoder.to_pixels",
    "decoder_pred.conv_smoother": "decoder.smooth",
}
IN_A_BLOCK = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
LAYERS = ("to_latent", "from_latent", "patch_embed.proj", "norm", "decoder_embed", "decoder_norm", *list(RENAMED)[-2:])


def convert(name: str, state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Converted:
    """VMAE's keywords, inferred from the tensors, and its state dict under our names.

    `perceptual_loss.*` (the training's LPIPS) is dropped; a file without `mask_token` gets zeros, which only masked
    passes read. No official file comes with `settings`. Raises ValueError for tensors that are missing, unknown, or
    without the dimensions to infer from.
    """
    state = {key: value for key, value in state.items() if not key.startswith("perceptual_loss.")}
    depth, decoder_depth = (count_blocks(state, prefix) for prefix in ("blocks", "decoder_blocks"))
    expected = {"pos_embed", "decoder_pos_embed"} | {
        f"{layer}.{kind}" for layer in LAYERS for kind in ("weight", "bias")
    }
    for prefix, count in (("blocks", depth), ("decoder_blocks", decoder_depth)):
        expected |= {
            f"{prefix}.{i}.{part}.{kind}" for i in range(count) for part in IN_A_BLOCK for kind in ("weight", "bias")
        }
    validate_keys(
        name, ENTRIES[name], missing=expected - state.keys(), unknown=state.keys() - expected - {"mask_token"}
    )
    width, decoder_width = shape(state, "norm.weight", 1)[0], shape(state, "decoder_norm.weight", 1)[0]
    patch_size = shape(state, "patch_embed.proj.weight", 4)[-1]
    state.setdefault("mask_token", state["decoder_norm.weight"].new_zeros(1, 1, decoder_width))
    keywords = {
        "image_size": patch_size * math.isqrt(shape(state, "pos_embed", 3)[1]),
        "patch_size": patch_size,
        "latent_channels": shape(state, "from_latent.weight", 2)[1],
        "width": width,
        "depth": depth,
        "num_heads": NUM_HEADS[name],
        "decoder_width": decoder_width,
        "decoder_depth": decoder_depth,
        "decoder_num_heads": NUM_HEADS[name],
        "mlp_ratio": shape(state, "blocks.0.mlp.fc1.weight", 2)[0] / width,
        "latent_head": "linear",
        "position_resize": "interpolate",
    }
    return Converted("tokenizer", "vmae", keywords, {rename(key, RENAMED): value for key, value in state.items()})
