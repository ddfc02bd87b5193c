"""Rotary position embeddings: fixed ones of a sequence or a grid, and learned 2D frequencies ("mixed" RoPE).

[0] Heo et al., Rotary Position Embedding for Vision Transformer, 2024, https://arxiv.org/abs/2403.13298
[1] Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, 2021, https://arxiv.org/abs/2104.09864
[2] Fang et al., EVA-02: A Visual Representation for Neon Genesis, 2023, https://arxiv.org/abs/2303.11331 (separate
pairs for rows and columns)
"""

import math

import torch
from einops import rearrange
from torch import Tensor, nn


class MixedRotary(nn.Module):
    """Learned frequencies per layer and head: pair i at (row, column) is rotated by column * f_x[i] + row * f_y[i] (eq.
    14 of [0]).
    """

    def __init__(self, *, depth: int, num_heads: int, head_dim: int, theta: float):
        super().__init__()
        angles = 2 * math.pi * torch.rand(depth, num_heads)
        frequencies = initial_frequencies(angles, head_dim=head_dim, theta=theta)
        self.frequencies = nn.Parameter(frequencies)  # (2, depth, heads, head_dim / 2)

    def forward(
        self,
        grid: tuple[int, int],
        *,
        before: int,
        after: int,
    ) -> list[tuple[Tensor, Tensor]]:  # for each layer cos and sin, (heads, T, head_dim / 2) each
        """The rotations of the tokens of a grid, row-major, with `before` and `after` unrotated tokens around them."""
        axes = [torch.arange(side, device=self.frequencies.device).float() for side in grid]
        rows, columns = axes[0].repeat_interleave(grid[1]), axes[1].repeat(grid[0])
        f_x, f_y = self.frequencies.float().unbind(0)  # (depth, heads, head_dim / 2) each
        # (depth, heads, P, head_dim / 2), always in float32
        angles = columns[:, None] * f_x[:, :, None] + rows[:, None] * f_y[:, :, None]
        angles = nn.functional.pad(angles, (0, 0, before, after))
        return list(zip(angles.cos(), angles.sin(), strict=True))


def sequence_rotations(
    num_tokens: int, *, head_dim: int, theta: float
) -> tuple[Tensor, Tensor]:  # cos and sin, (1, T, head_dim / 2) each
    """The rotations of a sequence: pair i by position * theta^(-2i / head_dim) (eq. 15 of [1]).

    Raises ValueError unless 2 divides `head_dim`.
    """
    angles = axis_angles(num_tokens, features=head_dim, theta=theta).unsqueeze(0)
    return angles.cos(), angles.sin()


def grid_rotations(
    grid: tuple[int, int], *, head_dim: int, theta: float
) -> tuple[Tensor, Tensor]:  # cos and sin, (1, T, head_dim / 2) each
    """The rotations of a grid, row-major: half of the pairs by the row, half by the column, each like a sequence with
    half a head [2].

    Raises ValueError unless 4 divides `head_dim`.
    """
    rows, columns = (axis_angles(side, features=head_dim / 2, theta=theta) for side in grid)
    angles = torch.cat([rows.repeat_interleave(grid[1], dim=0), columns.repeat(grid[0], 1)], dim=-1).unsqueeze(0)
    return angles.cos(), angles.sin()


def axis_angles(length: int, *, features: float, theta: float) -> Tensor:  # (length, features / 2)
    """Angles along one axis. Raises ValueError for an odd number of features and for a theta that is not positive."""
    if theta <= 0:
        raise ValueError(f"rope_theta, the base of rotary frequencies, must be positive, got {theta}.")
    if features % 2:
        raise ValueError(
            f"Rotary positions rotate pairs of features, but a head has {features:g} features per axis. "
            "Choose another num_heads."
        )
    frequencies = theta ** -(torch.arange(0, features, 2).float() / features)
    return torch.arange(length).float()[:, None] * frequencies


def initial_frequencies(
    angles: Tensor,  # (..., heads), in radians
    *,
    head_dim: int,
    theta: float,
) -> Tensor:  # (2, ..., heads, head_dim / 2): of columns, of rows
    """Magnitudes theta^(-4k / head_dim) along a direction per head, then orthogonal to it.

    Raises ValueError unless 4 divides `head_dim`.
    """
    if head_dim % 4:
        raise ValueError(
            f"Two-dimensional rotary positions need a head width divisible by 4, got {head_dim}. "
            "Choose another num_heads."
        )
    magnitudes = theta ** -(torch.arange(0, head_dim, 4).float() / head_dim)
    along, across = angles[..., None], angles[..., None] + math.pi / 2
    return torch.stack(
        [torch.cat([magnitudes * part(along), magnitudes * part(across)], dim=-1) for part in (torch.cos, torch.sin)]
    )


def rotate(
    x: Tensor,  # (B, heads, T, head_dim)
    cos: Tensor,  # (heads or 1, T, head_dim / 2)
    sin: Tensor,  # (heads or 1, T, head_dim / 2)
) -> Tensor:  # (B, heads, T, head_dim)
    """Rotates adjacent pairs of features, in float32, and returns the input's dtype."""
    a, b = rearrange(x.float(), "b h t (pairs two) -> two b h t pairs", two=2)
    rotated = torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1)
    return rearrange(rotated, "b h t pairs two -> b h t (pairs two)").to(x.dtype)
