"""Maps of the reference vectors as tokens, and back."""

from einops import rearrange
from torch import Tensor


def tokens(
    maps: Tensor,  # (..., C, H, W)
) -> Tensor:  # (..., H * W, C)
    """The positions of a map, row by row."""
    return rearrange(maps, "... c h w -> ... (h w) c")


def maps(
    z: Tensor,  # (B, H * W, C)
    like: Tensor,  # (..., H, W)
) -> Tensor:  # (B, C, H, W)
    """Tokens on a map as high and as wide as another."""
    return rearrange(z, "b (h w) c -> b c h w", h=like.shape[-2], w=like.shape[-1])
