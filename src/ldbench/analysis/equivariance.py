"""Equivariance: whether a latent that lies on a grid moves as its image does.

[0] Kouzelis et al., EQ-VAE: Equivariance Regularized Latent Space for Improved Generative Image Modeling, 2025, https://arxiv.org/abs/2502.09509
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Move = Callable[
    [Tensor, int], Tensor
]  # maps (B, C, h, w), pixels of a map to a cell of the latent -> maps of the same size


@dataclass(frozen=True)
class Equivariance:
    """Errors of each image, root mean squares, (B,) float64: 0 where encoding and decoding commute with the move."""

    latent: Tensor  # encoding the moved image, against moving its encoding
    pixels: Tensor  # decoding the moved encoding, against moving the decoded image


def equivariance(
    encode: Callable[[Tensor], Tensor],  # (B, 3, H, W) -> maps (B, C, h, w), in whatever unit they are to be compared
    decode: Callable[[Tensor], Tensor],  # maps -> (B, 3, H, W)
    images: Tensor,  # (B, 3, H, W)
    move: Move,
) -> Equivariance:
    """How far a move of the image is from the same move of its latent. [0] holds the decoded image against the moved original instead,
    in which the error of reconstruction counts too.

    Raises ValueError for images that are no whole number of cells.
    """
    maps = encode(images)
    cell = images.shape[2] // maps.shape[2]
    if images.shape[2] != cell * maps.shape[2] or images.shape[3] != cell * maps.shape[3]:
        raise ValueError(
            f"Images of {tuple(images.shape[2:])} px are no whole number of cells of a {tuple(maps.shape[2:])} grid."
        )
    latent = size(encode(move(images, cell)) - move(maps, 1))
    return Equivariance(latent=latent, pixels=size(decode(move(maps, 1)) - move(decode(maps), cell)))


def shift(maps: Tensor, cell: int) -> Tensor:
    """One cell down and one to the right; what leaves comes in on the other side, so that nothing is lost and nothing invented."""
    return torch.roll(maps, (cell, cell), dims=(2, 3))


def rotate(maps: Tensor, cell: int) -> Tensor:
    """A quarter turn, which is exact on pixels and cells alike. Of square maps only."""
    return torch.rot90(maps, 1, dims=(2, 3))


def scale(maps: Tensor, cell: int) -> Tensor:
    """Twice as large about the centre, bilinear: the inner half of each side, so that nothing is looked up outside."""
    halved = torch.tensor([[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]], dtype=maps.dtype, device=maps.device)
    places = F.affine_grid(halved.expand(len(maps), 2, 3), list(maps.shape), align_corners=False)
    return F.grid_sample(maps, places, mode="bilinear", padding_mode="border", align_corners=False)


MOVES: dict[str, Move] = {"shift": shift, "scale": scale, "rotation": rotate}


def size(x: Tensor) -> Tensor:  # (B, ...) -> (B,)
    """The root mean square of each item."""
    return x.double().flatten(1).square().mean(dim=1).sqrt()
