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
