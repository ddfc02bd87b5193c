"""SoftVQ-VAE's official checkpoints: released tokenizers, or training checkpoints.

[0] Chen et al., SoftVQ-VAE: Efficient 1-Dimensional Continuous Tokenizer, CVPR 2025, https://arxiv.org/abs/2412.10958
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ldbench.official import Converted, Entry, count_blocks, get_number, rename, shape, validate_keys, validate_setting

if TYPE_CHECKING:
    from torch import Tensor

ABOUT: dict[str, Any] = {
    "source": "https://github.com/Hhhhhhao/continuous_tokenizer",
    "licence": "none given in the repository; its maintainer named MIT or Apache-2.0",
    "citation": "Chen et al., SoftVQ-VAE: Efficient 1-Dimensional Continuous Tokenizer, CVPR 2025, arXiv:2412.10958",
    "averaged": True,
    "sizes_from_file": True,  # two repositories hold other sizes than their names say
}
# mean and deviation of all channels, from the official code; those in a config.json come first
STATS = {
    "softvq_b_64": (-0.003192751, 0.07235257),
    "softvq_l_64": (0.0009714666, 0.07259091),
    "softvq_bl_64": (-0.00077168207, 0.07157949),
    "softvq_b_32": (-0.0001770356, 0.029009325),
    "softvq_l_32": (0.00060894643, 0.029030401),
    "softvq_bl_32": (0.0010870857, 0.028672216),
    "softvq_bl_64_512": (-0.0021498345, 0.073663734),
    "softvq_l_32_512": (-0.0011922447, 0.028908715),
}
WHERE = "Download config.json and model.safetensors of {} from the Hugging Face hub into one folder."
HUBS = {name: f"SoftVQVAE/{name.replace('_', '-')}" for name in STATS}
ENTRIES = {
    "softvq": Entry(**ABOUT, where="Give a released tokenizer of the repository, or a checkpoint of its training."),
    **{
        name: Entry(**ABOUT, where=WHERE.format(HUBS[name]), hub=HUBS[name], latent_stats=stats)
        for name, stats in STATS.items()
    },
}

HEAD_WIDTH = 64  # of every ViT of the official code; it cannot be inferred from the tensors
TEMPERATURE = 0.07  # of all released ones; no tensor holds it

SETTINGS = {  # key of config.json -> our keyword
    "num_latent_tokens": "num_tokens",
    "codebook_embed_dim": "latent_channels",
    "codebook_size": "codebook_size",
    "num_codebooks": "num_codebooks",
    "codebook_l2_norm": "unit_norm",
    "image_size": "image_size",
    "enc_patch_size": "patch_size",
    "dec_patch_size": "patch_size",
}
RENAMED = {  # theirs -> ours, by prefix
    "encoder.latent_tokens": "encoder.latent_tokens",
    "encoder.latent_pos_embed": "encoder.latent_positions",
    "encoder.model.cls_token": "encoder.class_token",
    "encoder.model.pos_embed": "encoder.positions",
    "encoder.model.patch_embed": "encoder.patch_embed",
    "encoder.model.blocks": "encoder.transformer.blocks",
    "encoder.model.norm": "encoder.transformer.norm",
    "quant_conv": "encoder.to_latent",
    "quantize.embedding": "encoder.codebook.codes",
    "post_quant_conv": "decoder.query.from_latent",
    "decoder.mask_token": "decoder.query.query",
    "decoder.latent_pos_embed": "decoder.query.latent_positions",
    "decoder.model.cls_token": "decoder.query.class_token",
    "decoder.model.pos_embed": "decoder.query.positions",
    "decoder.model.blocks": "decoder.query.transformer.blocks",
    "decoder.model.norm": "decoder.query.transformer.norm",
    "decoder.to_pixel.model": "decoder.to_pixels",
}
IN_A_BLOCK = {".ls1.": ".scale1.", ".ls2.": ".scale2."}
LAYERS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "norm1", "norm2")
# without effect on the output, or of the training alone
UNUSED = ("decoder.model.patch_embed.", "quantize.codebook_used", "repa_model.", "projection.")


def convert(name: str, state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Converted:
    """SoftVQ's keywords, inferred from the tensors, and its state dict under our names.

    `tau`, the temperature of the mixtures, is read from `settings` (its config.json); its other entries may not
    contradict the tensors. Raises ValueError for anything missing, unknown or contradictory.
    """
    state = {key: value for key, value in without_wrappers(state).items() if not key.startswith(UNUSED)}
    depth, decoder_depth = (count_blocks(state, f"{part}.model.blocks") for part in ("encoder", "decoder"))
    expected = expected_keys(depth, decoder_depth, scaled="encoder.model.blocks.0.ls1.gamma" in state)
    validate_keys(name, ENTRIES[name], missing=expected - state.keys(), unknown=state.keys() - expected)
    width, decoder_width = (shape(state, f"{part}.model.cls_token", 3)[-1] for part in ("encoder", "decoder"))
    patch_size = shape(state, "encoder.model.patch_embed.proj.weight", 4)[-1]
    books, size, channels = shape(state, "quantize.embedding", 3)
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
        "latent_head": "softvq",
        "num_codebooks": books,
        "codebook_size": size,
        "temperature": get_number(settings, "tau", TEMPERATURE),
        "unit_norm": settings.get("codebook_l2_norm", True),
        "layer_scale": 1e-5 if "encoder.model.blocks.0.ls1.gamma" in state else None,
        "linear_std": 0.02,
        "token_std": 0.02,
    }
    for key, keyword in SETTINGS.items():
        validate_setting(settings, key, keywords[keyword])
    renamed = {rename(key, RENAMED, IN_A_BLOCK): value for key, value in state.items()}
    return Converted("tokenizer", "softvq", keywords, renamed)


def without_wrappers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict whose encoder and decoder carry no prefix of DistributedDataParallel or torch.compile."""
    plain = {}
    for key, value in state.items():
        for part in ("encoder.", "decoder."):
            while key.startswith((f"{part}module.", f"{part}_orig_mod.")):
                key = part + key.removeprefix(part).partition(".")[2]
        plain[key] = value
    return plain


def expected_keys(depth: int, decoder_depth: int, *, scaled: bool) -> set[str]:
    """The names of all tensors of a checkpoint."""
    tensors = {"quantize.embedding", "encoder.latent_tokens", "decoder.mask_token"}
    layers = {"encoder.model.patch_embed.proj", "quant_conv", "post_quant_conv", "decoder.to_pixel.model"}
    for part, count in (("encoder", depth), ("decoder", decoder_depth)):
        tensors |= {f"{part}.latent_pos_embed", f"{part}.model.cls_token", f"{part}.model.pos_embed"}
        layers |= {f"{part}.model.norm"} | {
            f"{part}.model.blocks.{i}.{layer}" for i in range(count) for layer in LAYERS
        }
        if scaled:
            tensors |= {f"{part}.model.blocks.{i}.{scale}.gamma" for i in range(count) for scale in ("ls1", "ls2")}
    return tensors | {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
