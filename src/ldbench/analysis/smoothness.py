"""Perturbation: how a metric of the decoded image changes when noise is added to its latent.

[0] Lee et al., Latent Diffusion Models with Masked AutoEncoders (LDMAE), 2025, https://arxiv.org/abs/2507.09984
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor


@dataclass(frozen=True)
class CurveStatistics:
    """How much a metric changes with the noise, by image. Both are near 0 for a smooth latent."""

    slope: Tensor  # (n,) float64: of the least-squares line over all levels, per standard deviation
    area: Tensor  # (n,) float64: between the curve and its value at the lowest level, by the trapezoidal rule


def perturb(
    mean: Tensor,  # (B, N, C)
    *,
    eps: float,
    noise: Tensor,  # (B, N, C), standard normal
    sigma: Tensor,  # (C,): the standard deviation of each channel over the data set
) -> Tensor:  # (B, N, C)
    """Latents perturbed by `eps` standard deviations of their channel: mean + eps * noise * sigma, as in LDMAE [0]."""
    return mean + eps * noise * sigma


def curve(
    levels: Sequence[float],  # of eps, ascending
    values: Tensor,  # (levels, n): a metric of each image at each level
) -> CurveStatistics:
    """Slope and area of each curve over `levels`; both are linear in the metric, so that their means are those of the
    mean curve.

    [0] shows these curves without statistics: slope and area are ours.
    Raises ValueError unless there are at least two ascending levels and all values are finite.
    """
    if len(levels) < 2 or any(b <= a for a, b in pairwise(levels)) or len(values) != len(levels):
        raise ValueError(
            f"A curve needs at least two ascending levels and a row of values for each, got {list(levels)} and "
            f"{len(values)} rows."
        )
    if not torch.isfinite(values).all():
        raise ValueError("A curve with values that are not finite has no slope and no area.")
    eps, values = torch.tensor(levels, dtype=torch.float64), values.double()
    centered = eps - eps.mean()
    return CurveStatistics(
        slope=centered @ values / centered.square().sum(), area=torch.trapezoid(values - values[0], eps, dim=0)
    )
