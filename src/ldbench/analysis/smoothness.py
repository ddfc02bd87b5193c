"""Perturbation: how gently a figure of the decoded image changes when noise is added to its latent.

[0] Lee et al., Latent Diffusion Models with Masked AutoEncoders (LDMAE), 2025, https://arxiv.org/abs/2507.09984
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor


@dataclass(frozen=True)
class Curve:
    """How much a figure changes with the noise, by image. A smooth latent keeps both near 0."""

    slope: Tensor  # (n,) float64: of the least-squares line through all levels, per standard deviation
    area: Tensor  # (n,) float64: between the curve and what it is at the lowest level, by trapezia


def perturb(
    mean: Tensor,  # (B, N, C)
    *,
    eps: float,
    noise: Tensor,  # (B, N, C), standard normal
    sigma: Tensor,  # (C,): the standard deviation of each channel over the data set
) -> Tensor:  # (B, N, C)
    """Latents moved by `eps` standard deviations of their channel: mean + eps * noise * sigma, LDMAE's perturbation [0]."""
    return mean + eps * noise * sigma


def curve(
    levels: Sequence[float],  # of eps, ascending
    values: Tensor,  # (levels, n): a figure of each image at each level
) -> Curve:
    """Two numbers of each curve over `levels`; both are linear in the figure, so that their means are those of the mean curve.

    [0] draws these curves and sums them up in no number: slope and area are ours.
    Raises ValueError unless there are two levels or more, ascending, and every value is finite.
    """
    if len(levels) < 2 or any(b <= a for a, b in pairwise(levels)) or len(values) != len(levels):
        raise ValueError(
            f"A curve needs two ascending levels or more and a row of values for each, got {list(levels)} and {len(values)} rows."
        )
    if not torch.isfinite(values).all():
        raise ValueError("A curve with values that are not finite has no slope and no area.")
    eps, values = torch.tensor(levels, dtype=torch.float64), values.double()
    centred = eps - eps.mean()
    return Curve(slope=centred @ values / centred.square().sum(), area=torch.trapezoid(values - values[0], eps, dim=0))
