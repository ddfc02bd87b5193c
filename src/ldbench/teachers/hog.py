"""Histograms of oriented gradients, one per color channel and cell.

[0] Dalal and Triggs, Histograms of Oriented Gradients for Human Detection, 2005, https://doi.org/10.1109/CVPR.2005.177
[1] Wei et al., Masked Feature Prediction for Self-Supervised Visual Pre-Training, 2021,
https://arxiv.org/abs/2112.09133 (this operator)
"""

import math
from typing import ClassVar

import torch
from einops import rearrange, reduce, repeat
from torch import Tensor, nn
from torch.nn import functional as F


class HOG(nn.Module):
    """Histograms of gradient orientations per cell: hard bins over 180 degrees, normalized to unit length per channel
    and cell.

    `cell_size`: in pixels. `window`: the side of a Gaussian (standard deviation half of it) that weights the pixels,
    tiled over the image and cropped; None weights them equally. Computed in float32 without convolutions, so that
    neither autocast nor the backend changes a pixel's bin. Flat areas are exactly 0 (in the official code of MAETok, 63
    of the 256 gray levels leave a rounding error of length 1).
    """

    revision: ClassVar[int] = 1

    def __init__(self, *, num_bins: int, cell_size: int, window: int | None):
        super().__init__()
        for name, value in (("num_bins", num_bins), ("cell_size", cell_size), ("window", window)):
            if value is not None and value < 1:
                cure = " null weights all pixels equally." if name == "window" else ""
                raise ValueError(f"HOG needs a {name} of at least 1, got {value}.{cure}")
        self.num_bins = num_bins
        self.cell_size = cell_size
        self.window: Tensor | None
        self.register_buffer("window", None if window is None else gaussian(window), persistent=False)

    def channels(self, image_size: int, grid: tuple[int, int]) -> int:
        """3 colors x bins x cells per position.

        Raises ValueError unless cells divide the image and the grid divides the cells.
        """
        rows, columns = self.cells_per_position(image_size, image_size, grid)
        return 3 * self.num_bins * rows * columns

    def cells_per_position(self, height: int, width: int, grid: tuple[int, int]) -> tuple[int, int]:
        """The rows and columns of cells in one position of the grid. Raises ValueError if they are not integers."""
        if height % self.cell_size or width % self.cell_size:
            raise ValueError(
                f"HOG cells of {self.cell_size} pixels do not divide an image of {height}x{width}. "
                f"Choose a cell_size that divides both sides, or images whose sides are multiples of {self.cell_size}."
            )
        cells = (height // self.cell_size, width // self.cell_size)
        if min(grid) < 1 or cells[0] % grid[0] or cells[1] % grid[1]:
            raise ValueError(
                f"A grid of {grid[0]}x{grid[1]} does not divide the {cells[0]}x{cells[1]} HOG cells of an image of "
                f"{height}x{width}. Choose a cell_size that divides {height / max(grid[0], 1):g}x"
                f"{width / max(grid[1], 1):g} pixels."
            )
        return cells[0] // grid[0], cells[1] // grid[1]

    @torch.no_grad()
    def cells(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
    ) -> Tensor:  # (B, 3, num_bins, H / cell_size, W / cell_size)
        """The histograms of all cells, each of unit length, or 0 for a flat cell."""
        across, down = gradients(images.float())
        magnitude = (across.square() + down.square()).sqrt()
        # Unsigned orientations: modulo 180 degrees.
        bins = (torch.atan2(across, down) / math.pi * self.num_bins).floor().remainder(self.num_bins)
        if self.window is not None:
            height, width = images.shape[-2:]
            side = len(self.window)
            tiled = repeat(self.window, "h w -> (i h) (j w)", i=math.ceil(height / side), j=math.ceil(width / side))
            magnitude = magnitude * tiled[:height, :width]
        pattern, size = "b c (h u) (w v) -> b c h w", self.cell_size
        sums = [reduce(magnitude * (bins == k), pattern, "sum", u=size, v=size) for k in range(self.num_bins)]
        return F.normalize(torch.stack(sums, dim=2), dim=2)

    @torch.no_grad()
    def forward(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
        grid: tuple[int, int],
    ) -> Tensor:  # (B, P, channels), float32
        """The histograms at each position: color, then bin, then the position's cells row by row.

        Raises ValueError as `channels` does.
        """
        height, width = images.shape[-2:]
        rows, columns = self.cells_per_position(height, width, grid)
        return rearrange(self.cells(images), "b c k (h u) (w v) -> b (h w) (c k u v)", u=rows, v=columns)


def gaussian(side: int) -> Tensor:
    """A centered (side, side) Gaussian with standard deviation side / 2, normalized to sum 1."""
    offsets = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    curve = torch.exp(-0.5 * (offsets / (side / 2)).square())
    curve = curve / curve.sum()
    return torch.outer(curve, curve).float()


def gradients(
    images: Tensor,  # (B, C, H, W)
) -> tuple[Tensor, Tensor]:  # both (B, C, H, W)
    """Sobel gradients across (left minus right) and down (upper minus lower), with reflected edges; 0 where both sides
    are equal.

    Summed in the order of the filters' rows, as a convolution on a CPU does: at the edge of two bins, rounding decides.
    """
    height, width = images.shape[-2:]
    x = F.pad(images, (1, 1, 1, 1), mode="reflect")
    (a, b, c), (d, _, f), (g, h, i) = (
        [x[..., row : row + height, column : column + width] for column in range(3)] for row in range(3)
    )
    across = a - c + 2 * d - 2 * f + g - i
    down = a + 2 * b + c - g - 2 * h - i
    flat = (a == g) & (b == h) & (c == i)  # that order leaves a rounding error here, which normalization would amplify
    return across, down.masked_fill(flat, 0)
