"""Equivariance: whether a latent on a grid transforms as its image does.

[0] Kouzelis et al., EQ-VAE: Equivariance Regularized Latent Space for Improved Generative Image Modeling, 2025,
    https://arxiv.org/abs/2502.09509
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

# maps (B, C, h, w), pixels of the map per cell of the latent -> maps of the same size
Transform = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Equivariance:
    """Root mean square errors of each image, (B,) float64: 0 where encoding and decoding commute with the transform."""

    latent: Tensor  # encoding of the transformed image, against the transformed encoding
    pixels: Tensor  # decoding of the transformed encoding, against the transformed decoded image


def equivariance(
    encode: Callable[[Tensor], Tensor],  # (B, 3, H, W) -> maps (B, C, h, w), in the unit in which they are compared
    decode: Callable[[Tensor], Tensor],  # maps -> (B, 3, H, W)
    images: Tensor,  # (B, 3, H, W)
    transform: Transform,
) -> Equivariance:
    """The difference between transforming the image and transforming its latent.

    [0] compares the decoded image with the transformed original instead, which includes the reconstruction error.

    Raises ValueError for images that are not an integer number of cells.
    """
    maps = encode(images)
    cell = images.shape[2] // maps.shape[2]
    if images.shape[2] != cell * maps.shape[2] or images.shape[3] != cell * maps.shape[3]:
        raise ValueError(
            f"Images of {tuple(images.shape[2:])} px are not an integer number of cells of a {tuple(maps.shape[2:])} "
            "grid."
        )
    latent = rms(encode(transform(images, cell)) - transform(maps, 1))
    return Equivariance(latent=latent, pixels=rms(decode(transform(maps, 1)) - transform(decode(maps), cell)))


def shift(maps: Tensor, cell: int) -> Tensor:
    """Cyclic shift by one cell down and one to the right."""
    return torch.roll(maps, (cell, cell), dims=(2, 3))


def rotate(maps: Tensor, cell: int) -> Tensor:
    """Rotation by 90 degrees, exact on pixels and cells. For square maps only."""
    return torch.rot90(maps, 1, dims=(2, 3))


def scale(maps: Tensor, cell: int) -> Tensor:
    """Bilinear zoom by 2 about the center, which samples nothing outside the map."""
    halved = torch.tensor([[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]], dtype=maps.dtype, device=maps.device)
    coordinates = F.affine_grid(halved.expand(len(maps), 2, 3), list(maps.shape), align_corners=False)
    return F.grid_sample(maps, coordinates, mode="bilinear", padding_mode="border", align_corners=False)


TRANSFORMS: dict[str, Transform] = {"shift": shift, "scale": scale, "rotation": rotate}


def rms(x: Tensor) -> Tensor:  # (B, ...) -> (B,)
    """The root mean square of each item."""
    return x.double().flatten(1).square().mean(dim=1).sqrt()
