"""Equivariance regularization: latents and images are resized and rotated alike, and the decoder learns the pair.

[0] Kouzelis et al., EQ-VAE: Equivariance Regularized Latent Space for Improved Generative Image Modeling, 2025,
    https://arxiv.org/abs/2502.09509
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

ROUNDING = 1e-9  # of a scale times a number of rows


@dataclass(frozen=True)
class Transform:
    """Bilinear resizing to a grid, then rotation by quarter turns."""

    grid: tuple[int, int]  # rows and columns before the rotation
    turns: int

    def __call__(
        self,
        maps: Tensor,  # (B, C, h, w)
        cell: int,  # pixels of the map on the side of a grid's position: 1 for latents
    ) -> Tensor:  # (B, C, h', w')
        """The transformed maps."""
        size = (self.grid[0] * cell, self.grid[1] * cell)
        if tuple(maps.shape[-2:]) != size:
            maps = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
        return torch.rot90(maps, self.turns, dims=(2, 3)) if self.turns else maps


@dataclass(frozen=True)
class Equivariance:
    """How often batches are transformed, and how.

    With `probability` the sampled latents and the images of a batch are resized by one factor in `scales` ([least,
    most], whole positions of the grid) and rotated by one of `rotations` (degrees). Of the other batches the share
    `downscaled` has its images resized before they are encoded. `probability` 0: none. [0]: 0.5, 8/32 to 31/32, 90, 180
    and 270, 0.25. Raises ValueError for numbers out of range.
    """

    probability: float = 0.0
    scales: Sequence[float] = (0.25, 0.97)
    rotations: Sequence[int] = (90, 180, 270)
    downscaled: float = 0.25

    def __post_init__(self) -> None:
        for name, value in (("probability", self.probability), ("downscaled", self.downscaled)):
            if not 0 <= value <= 1:
                raise ValueError(f"equivariance.{name} must lie in [0, 1], got {value}.")
        if len(self.scales) != 2 or not 0 < self.scales[0] <= self.scales[1] <= 1:
            raise ValueError(f"equivariance.scales must be [least, most] in (0, 1], got {list(self.scales)}.")
        if not self.rotations or any(angle not in (0, 90, 180, 270) for angle in self.rotations):
            raise ValueError(f"equivariance.rotations must be some of 0, 90, 180, 270, got {list(self.rotations)}.")

    @property
    def active(self) -> bool:
        """Whether any batch is transformed."""
        return self.probability > 0

    def rows(self, grid: tuple[int, int]) -> range:
        """The numbers of rows that scaling may lead to. Raises ValueError if there is none."""
        least = max(1, math.ceil(self.scales[0] * grid[0] - ROUNDING))
        most = math.floor(self.scales[1] * grid[0] + ROUNDING)
        if least > most:
            raise ValueError(
                f"equivariance.scales={list(self.scales)} leave no whole number of {grid[0]} rows. Choose wider ones."
            )
        return range(least, most + 1)

    def draw(self, grid: tuple[int, int]) -> tuple[Transform | None, Transform | None]:
        """The transform of a batch's latents and images, and the resizing of its images alone; at most one is given.

        From torch's global stream, with the same number of draws for every batch.
        """
        kind, resized, row, angle = torch.rand(4, dtype=torch.float64).tolist()
        rows = self.rows(grid)
        chosen = rows[int(row * len(rows))]
        size = (chosen, max(1, round(chosen * grid[1] / grid[0])))
        if kind < self.probability:
            return Transform(size, self.rotations[int(angle * len(self.rotations))] // 90), None
        return None, Transform(size, 0) if resized < self.downscaled else None

    def extremes(self, grid: tuple[int, int]) -> list[Transform]:
        """The transforms by the smallest and the largest scale."""
        rows = self.rows(grid)
        return [Transform((row, row * grid[1] // grid[0]), self.rotations[0] // 90) for row in (rows[0], rows[-1])]
