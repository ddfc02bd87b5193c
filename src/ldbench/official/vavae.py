"""VA-VAE's and Stable Diffusion's autoencoders, in the layouts of latent diffusion (raw or training) and of diffusers.

[0] Yao et al., Reconstruction vs. Generation: Taming Optimization Dilemma in Latent Diffusion Models, 2025,
    https://arxiv.org/abs/2501.01423
[1] Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, 2022, https://arxiv.org/abs/2112.10752
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ldbench.official import Converted, Entry, shape, validate_keys

if TYPE_CHECKING:
    from torch import Tensor

VAVAE: dict[str, Any] = {
    "source": "https://github.com/hustvl/LightningDiT",
    "licence": "MIT",
    "citation": "Yao et al., Reconstruction vs. Generation: Taming Optimization Dilemma in Latent Diffusion Models, "
    "CVPR 2025, arXiv:2501.01423",
}
ENTRIES = {
    "vavae_f16d16": Entry(**VAVAE, where="Download its weights from the links in the repository's README."),
    "vavae_f16d32": Entry(
        **VAVAE,
        where="Download vavae-imagenet256-f16d32-dinov2.pt from the link in the repository's README.",
        hub="hustvl/vavae-imagenet256-f16d32-dinov2",
        unverified=True,
    ),
    "vavae_f16d64": Entry(**VAVAE, where="Download its weights from the links in the repository's README."),
    "sd_vae_f8d4": Entry(
        source="https://github.com/CompVis/latent-diffusion",
        licence="MIT",
        citation="Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, CVPR 2022, "
        "arXiv:2112.10752",
        where="Download the folder of stabilityai/sd-vae-ft-mse from the Hugging Face hub, "
        "or any KL-f8 autoencoder of latent diffusion.",
        hub="stabilityai/sd-vae-ft-mse",
        unverified=True,
        latent_scale=0.18215,
    ),
}
NOMINAL_SIZE = 256  # px: it cannot be inferred, and any multiple of the downsampling factor works
IGNORED = ("loss.", "foundation_model.", "linear_proj.", "model_ema.")  # other parts of a training checkpoint

LDM = (  # theirs -> ours, applied in this order
    (r"^quant_conv\.", "encoder.to_latent."),
    (r"^post_quant_conv\.", "decoder.from_latent."),
    (r"^(encoder|decoder)\.(conv_in|conv_out|norm_out)\.", r"\1.conv.\2."),
    (r"^(encoder|decoder)\.mid\.block_(\d)\.", r"\1.conv.middle.block\2."),
    (r"^(encoder|decoder)\.mid\.attn_1\.", r"\1.conv.middle.attention."),
    (r"^(encoder)\.down\.(\d+)\.|^(decoder)\.up\.(\d+)\.", r"\1\3.conv.levels.\2\4."),
    (r"\.block\.(\d+)\.", r".blocks.\1."),
    (r"\.attn\.(\d+)\.", r".attention.\1."),
    (r"\.(downsample|upsample)\.", ".resample."),
    (r"\.nin_shortcut\.", ".shortcut."),
    (r"\.proj_out\.", ".proj."),
)
DIFFUSERS = (  # theirs -> latent diffusion's
    (r"\.conv_norm_out\.", ".norm_out."),
    (r"\.mid_block\.resnets\.0\.", ".mid.block_1."),
    (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
    (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."),
    (r"\.down_blocks\.(\d+)\.resnets\.(\d+)\.", r".down.\1.block.\2."),
    (r"\.down_blocks\.(\d+)\.attentions\.(\d+)\.", r".down.\1.attn.\2."),
    (r"\.down_blocks\.(\d+)\.downsamplers\.0\.", r".down.\1.downsample."),
    (r"\.up_blocks\.(\d+)\.resnets\.(\d+)\.", r".up.\1.block.\2."),
    (r"\.up_blocks\.(\d+)\.attentions\.(\d+)\.", r".up.\1.attn.\2."),
    (r"\.up_blocks\.(\d+)\.upsamplers\.0\.", r".up.\1.upsample."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.group_norm\.", ".norm."),
    (r"\.(?:to_q|query)\.", ".q."),
    (r"\.(?:to_k|key)\.", ".k."),
    (r"\.(?:to_v|value)\.", ".v."),
    (r"\.(?:to_out\.0|proj_attn)\.", ".proj_out."),
)


def convert(name: str, state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Converted:
    """The keywords of `VAVAE`, inferred from the tensors, and its state dict under our names.

    `settings` are those of diffusers and not needed. Everything but the autoencoder of a training checkpoint is
    dropped. Raises ValueError for anything missing or unknown.
    """
    state = {key: value for key, value in state.items() if not key.startswith(IGNORED)}
    if any(".mid_block." in key for key in state):
        state = from_diffusers(state)
    levels = 1 + max(
        (int(match.group(1)) for key in state if (match := re.match(r"encoder\.down\.(\d+)\.", key))), default=0
    )
    blocks = {key.split(".")[4] for key in state if key.startswith("encoder.down.0.block.")}
    attention, decoder_attention = (levels_with_attention(state, part) for part in ("encoder.down", "decoder.up"))
    latent_convs = any(key.startswith(("quant_conv.", "post_quant_conv.")) for key in state)
    depth = max(1, len(blocks))
    expected = expected_keys(levels, depth, attention, state, decoder_attention, latent_convs=latent_convs)
    validate_keys(name, ENTRIES[name], missing=expected - state.keys(), unknown=state.keys() - expected)
    latent = shape(state, "decoder.conv_in.weight", 4)[1]
    keywords = {
        "image_size": NOMINAL_SIZE,
        "widths": [shape(state, f"encoder.down.{i}.block.0.conv1.weight", 4)[0] for i in range(levels)],
        "depth": depth,
        "attention": attention,
        "latent_channels": latent,
        "latent_head": "kl" if shape(state, "encoder.conv_out.weight", 4)[0] == 2 * latent else "ae",
        "channels_last": False,
        "checkpointing": False,
        **({} if decoder_attention == attention else {"decoder_attention": decoder_attention}),
        **({} if latent_convs else {"latent_convs": False}),
    }
    return Converted("tokenizer", "vavae", keywords, {rename(key, LDM): value for key, value in state.items()})


def levels_with_attention(state: Mapping[str, Tensor], part: str) -> list[int]:
    """The levels of the encoder or the decoder that have attention."""
    found = (re.match(rf"{part}\.(\d+)\.attn\.", key) for key in state)
    return sorted({int(match.group(1)) for match in found if match})


def expected_keys(
    levels: int,
    depth: int,
    attention: list[int],
    state: Mapping[str, Tensor],
    decoder_attention: list[int] | None = None,
    *,
    latent_convs: bool = True,
) -> set[str]:
    """The names of all tensors in latent diffusion's layout; there are 1 x 1 shortcuts where the width changes."""
    there = {"encoder": attention, "decoder": attention if decoder_attention is None else decoder_attention}
    res, attn = ("norm1", "conv1", "norm2", "conv2"), ("norm", "q", "k", "v", "proj_out")
    layers = {"quant_conv", "post_quant_conv"} if latent_convs else set()
    for part, level_name, blocks, resample in (
        ("encoder", "down", depth, "downsample"),
        ("decoder", "up", depth + 1, "upsample"),
    ):
        layers |= {f"{part}.{layer}" for layer in ("conv_in", "conv_out", "norm_out")}
        layers |= {f"{part}.mid.block_{i}.{layer}" for i in (1, 2) for layer in res} | {
            f"{part}.mid.attn_1.{layer}" for layer in attn
        }
        for level in range(levels):
            prefix = f"{part}.{level_name}.{level}"
            layers |= {f"{prefix}.block.{i}.{layer}" for i in range(blocks) for layer in res}
            layers |= {f"{prefix}.attn.{i}.{layer}" for i in range(blocks * (level in there[part])) for layer in attn}
            if level != (levels - 1 if part == "encoder" else 0):
                layers.add(f"{prefix}.{resample}.conv")
            first = state.get(f"{prefix}.block.0.conv1.weight")
            if first is not None and first.ndim == 4 and first.shape[0] != first.shape[1]:
                layers.add(f"{prefix}.block.0.nin_shortcut")
    return {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}


def from_diffusers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """diffusers' layout converted to latent diffusion's.

    In diffusers, the decoder's levels start at the lowest resolution, and attention consists of linear layers.
    """
    last = max(
        (int(match.group(1)) for key in state if (match := re.match(r"decoder\.up_blocks\.(\d+)\.", key))), default=0
    )
    converted = {}
    for key, value in state.items():
        name = re.sub(
            r"^decoder\.up_blocks\.(\d+)\.", lambda match: f"decoder.up_blocks.{last - int(match.group(1))}.", key
        )
        name = rename(name, DIFFUSERS)
        converted[name] = value[:, :, None, None] if ".attn" in name and value.ndim == 2 else value
    return converted


def rename(key: str, rules: tuple[tuple[str, str], ...]) -> str:
    """A key after applying all rules."""
    for theirs, ours in rules:
        key = re.sub(theirs, ours, key)
    return key
