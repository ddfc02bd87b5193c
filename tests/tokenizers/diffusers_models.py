"""Small autoencoders of every class of diffusers that we take, with random weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch

TWO: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "norm_num_groups": 8,
}
RES = {
    "attention_head_dim": 8,
    "encoder_block_out_channels": (16, 32),
    "decoder_block_out_channels": (16, 32),
    "encoder_layers_per_block": (1, 1),
    "decoder_layers_per_block": (1, 1),
}
DC: dict[str, Any] = RES | {
    "latent_channels": 8,
    "encoder_block_types": ("ResBlock", "EfficientViTBlock"),
    "decoder_block_types": ("ResBlock", "EfficientViTBlock"),
    "encoder_qkv_multiscales": ((), (5,)),
    "decoder_qkv_multiscales": ((), (5,)),
}
TINY: dict[str, Any] = {
    "encoder_block_out_channels": (8, 8),
    "decoder_block_out_channels": (8, 8),
    "num_encoder_blocks": (1, 1),
    "num_decoder_blocks": (1, 1),
}
QWEN: dict[str, Any] = {
    "base_dim": 8,
    "z_dim": 16,
    "dim_mult": [1, 2],
    "num_res_blocks": 1,
    "temperal_downsample": [False],
}
RAE: dict[str, Any] = {
    "encoder_hidden_size": 64,
    "encoder_num_hidden_layers": 1,
    "decoder_hidden_size": 32,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 64,
    "patch_size": 8,
    "encoder_input_size": 56,
    "image_size": 32,
}
MODELS: dict[str, Callable[..., Any]] = {
    "AutoencoderKL": lambda **changes: diffusers.AutoencoderKL(**TWO | changes),
    "AutoencoderDC": lambda **changes: diffusers.AutoencoderDC(**DC | changes),
    "AutoencoderTiny": lambda **changes: diffusers.AutoencoderTiny(**TINY | changes),
    "AutoencoderKLFlux2": lambda **changes: diffusers.AutoencoderKLFlux2(**TWO | {"latent_channels": 4} | changes),
    "AutoencoderKLQwenImage": lambda **changes: diffusers.AutoencoderKLQwenImage(**QWEN | changes),
    "AutoencoderKLHunyuanImage": lambda **changes: diffusers.AutoencoderKLHunyuanImage(
        **{"in_channels": 3, "out_channels": 3, "latent_channels": 8, "block_out_channels": (32, 32, 32)}
        | {"layers_per_block": 1, "spatial_compression_ratio": 4, "sample_size": 32}
        | changes
    ),
    "AutoencoderRAE": lambda **changes: diffusers.AutoencoderRAE(**RAE | changes),
}


def saved(class_name: str, folder: Path, **changes: Any) -> Any:
    """A model in eval mode, as `save_pretrained` leaves it in a folder."""
    torch.manual_seed(0)
    model = MODELS[class_name](**changes).eval()
    stored = model.state_dict()
    for name, value in model.named_buffers():  # statistics that change something
        if name in stored and value.is_floating_point() and value.numel() > 1:
            value.copy_(torch.rand_like(value) + 0.5)
    model.save_pretrained(folder)
    return model


RAE_KINDS = {  # of encoders, with their sizes
    "dinov2": {"encoder_patch_size": 14, "encoder_input_size": 56},
    "mae": {"encoder_patch_size": 16, "encoder_input_size": 64},
}


def rae_model(kind: str, **changes) -> diffusers.AutoencoderRAE:
    """An AutoencoderRAE whose weights, statistics and noise all matter."""
    torch.manual_seed(0)
    sizes = {"encoder_hidden_size": 128, "encoder_num_hidden_layers": 2, "patch_size": 8, "image_size": 32}
    decoder = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
    sizes |= {f"decoder_{key}": value for key, value in decoder.items()}
    stats = {"latents_mean": torch.randn(128, 4, 4), "latents_std": torch.rand(128, 4, 4) + 0.5}
    made = diffusers.AutoencoderRAE(
        encoder_type=kind, noise_tau=0.8, **{**sizes, **RAE_KINDS[kind], **stats, **changes}
    )
    for value in made.parameters():
        value.data.add_(torch.randn_like(value) * (0.02 if value.ndim > 2 else 0.05))
    return made.eval()
