"""Pixels: images are float32 in [-1, 1] in models and uint8 where they are stored or measured."""

from collections.abc import Sequence
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import pad

PixelRule = Literal["round", "truncate", "floor"]


def from_uint8(
    images: Tensor,  # (..., H, W) uint8
) -> Tensor:
    """The same images as float32 in [-1, 1]."""
    return images.to(torch.float32, copy=True).div_(127.5).sub_(1)  # in place: one copy, not three


def to_uint8(
    images: Tensor,  # (..., H, W) float in [-1, 1]; values outside are clamped
    rule: PixelRule = "round",
) -> Tensor:
    """The same images as uint8: `round` to the nearest level, `truncate(127.5 x + 128)` as ADM, DiT and LDMAE do, or
    `floor(127.5 x + 127.5)` as MAETok does, which is half a level darker on average.

    Raises ValueError for any other rule, and for pixels that are not finite (a cast would turn them into colors).
    """
    if not torch.isfinite(images).all():
        raise ValueError(
            "The images hold pixels that are not finite (NaN or infinity). Find their cause before measuring them."
        )
    pixels = images.double()
    if rule == "round":
        return (127.5 * (pixels + 1)).clamp(0, 255).round().to(torch.uint8)
    if rule == "truncate":
        return (127.5 * pixels + 128).clamp(0, 255).to(torch.uint8)
    if rule == "floor":
        return (127.5 * (pixels + 1)).clamp(0, 255).to(torch.uint8)
    raise ValueError(f"Unknown pixel rule {rule!r}. Choose round, truncate or floor.")


def validate_pixels(
    images: Tensor,  # (B, 3, H, W) uint8
) -> None:
    """Raises ValueError unless `images` is a batch of RGB uint8 images."""
    if images.dtype != torch.uint8:
        raise ValueError(
            f"Extractors take uint8 images, got {images.dtype}. "
            "Convert with core.pixels.to_uint8 by the protocol's rule."
        )
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"Extractors take images (B, 3, H, W), got {tuple(images.shape)}.")


def sheet(
    rows: Sequence[Tensor],  # each (K, 3, H, W) in [-1, 1]
    *,
    cell: int = 96,  # px: smaller images are enlarged by an integer factor to about this
    gap: int = 2,  # px
) -> Tensor:  # (3, H', W') uint8
    """A grid of images: each row's images side by side, the rows one below the other."""
    factor = max(1, cell // rows[0].shape[-1])
    lines = []
    for row in rows:
        enlarged = to_uint8(row).repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
        lines.append(rearrange(pad(enlarged, (0, gap, 0, gap), value=255), "k c h w -> c h (k w)"))
    return torch.cat(lines, dim=1)
