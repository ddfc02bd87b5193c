"""Position tables: fixed sinusoids in one and two dimensions, and their interpolation.

[0] He et al., Masked Autoencoders Are Scalable Vision Learners, 2022, https://arxiv.org/abs/2111.06377 (the MAE layout)
[1] Vaswani et al., Attention Is All You Need, 2017, https://arxiv.org/abs/1706.03762
"""

import math

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

MAX_TABLE = 1 << 28  # numbers in a table: 512 x 512 positions of width 1024


def sincos_1d(num_tokens: int, *, width: int) -> Tensor:  # (1, T, D) float32
    """The table of a sequence: even features are the sine, odd ones the cosine of position * 10000^(-2i/D) (section 3.5
    of [1]).

    Computed in float32, as in MAETok's generators. Raises ValueError unless 2 divides `width`.
    """
    if width % 2:
        raise ValueError(f"A one-dimensional sinusoid needs an even width, got {width}.")
    omega = torch.exp(torch.arange(0, width, 2).float() * (-math.log(10000) / width))
    angles = torch.arange(num_tokens).float()[:, None] * omega  # (T, D/2)
    return rearrange(torch.stack([angles.sin(), angles.cos()]), "two t d -> 1 t (d two)")


def sincos_2d(
    grid: tuple[int, int],
    *,
    width: int,
    dtype: torch.dtype = torch.float64,
    spacing: float = 1.0,  # between neighbors
) -> Tensor:  # (1, H*W, D) float32
    """The MAE table: the first half encodes the column, the second the row; each is [sin, cos] of position *
    10000^(-2k/half).

    `dtype`: the precision of the frequencies: MAE and VMAE use float32; DiT, SiT and LightningDiT float64.
    Raises ValueError unless 4 divides `width`.
    """
    if width % 4:
        raise ValueError(f"A two-dimensional sinusoid needs a width divisible by 4, got {width}.")
    if grid[0] * grid[1] * width > MAX_TABLE:
        raise ValueError(
            f"A table of {grid[0]} x {grid[1]} positions of width {width} is too large. "
            "Choose a smaller image or width."
        )
    # numpy's powers are bit-identical to the official tables on the same kind of processor.
    real = {torch.float32: np.float32, torch.float64: np.float64}[dtype]
    sides = (np.arange(side, dtype=real) * real(spacing) for side in grid)
    rows, columns = np.meshgrid(*sides, indexing="ij")
    quarter = width // 4
    omega = 1 / real(10000) ** (np.arange(quarter, dtype=real) / real(quarter))
    angles = [np.outer(positions.ravel(), omega) for positions in (columns, rows)]  # (H*W, D/4) each
    table = np.concatenate([half(angle) for angle in angles for half in (np.sin, np.cos)], axis=1)
    return torch.from_numpy(table).float().unsqueeze(0)


def resize_table(
    table: Tensor,  # (1, prefix + N, D), row-major over `old`
    old: tuple[int, int],
    new: tuple[int, int],
    *,
    prefix: int = 0,
) -> Tensor:  # (1, prefix + N', D)
    """Interpolates a position table to another grid: bilinear, half-pixel centers, no antialiasing; the first `prefix`
    rows are kept.

    Raises ValueError if its size does not match `old`.
    """
    if table.shape[1] != prefix + old[0] * old[1]:
        raise ValueError(f"A table of {table.shape[1]} positions does not fit a {old[0]}x{old[1]} grid.")
    if old == new:
        return table
    as_map = rearrange(table[:, prefix:], "1 (h w) d -> 1 d h w", h=old[0])
    resized = rearrange(F.interpolate(as_map, size=new, mode="bilinear", align_corners=False), "1 d h w -> 1 (h w) d")
    return torch.cat([table[:, :prefix], resized], dim=1)
