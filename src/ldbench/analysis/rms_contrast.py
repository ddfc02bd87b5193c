"""Contrast: how much the directions of an image's tokens differ.

[0] Singh et al., What Matters for Representation Alignment: Global Information or Spatial Structure?, 2025,
    https://arxiv.org/abs/2512.10794 (RMSC)
"""

from torch import Tensor
from torch.nn import functional as F


def rms_contrast(
    z: Tensor,  # (n, N, C)
) -> Tensor:  # (n,) float64
    """The root mean square distance of an image's tokens, each divided by its norm, from their mean [0].

    0: all tokens have one direction; 1: their directions cancel. Needs no grid.
    """
    unit = F.normalize(z.double(), dim=2)
    return (unit - unit.mean(dim=1, keepdim=True)).square().sum(dim=2).mean(dim=1).sqrt()
