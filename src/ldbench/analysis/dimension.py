"""Intrinsic dimension: the dimension of the manifold of latents, by TwoNN.

[0] Facco et al., Estimating the Intrinsic Dimension of Datasets by a Minimal Neighborhood Information, 2017,
    https://arxiv.org/abs/1803.06992
[1] Epstein and Sobel, Life Testing, 1953, https://doi.org/10.1080/01621459.1953.10483488 (exponential distribution with
    right-censored values)
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ldbench.core.intervals import ROUNDED_NORMAL_QUANTILE

ROWS = 1024  # points whose distances to all others are in memory


@dataclass(frozen=True)
class Dimension:
    """The dimension, the ends of its 95 % interval over points, and the number of points."""

    value: float
    low: float
    high: float
    num_points: int  # without duplicates


def two_nn(
    x: Tensor,  # (n, D)
    *,
    kept: float,  # share of the points, those with the smallest ratios, that are used; 0.9 in [0]
) -> Dimension:
    """The dimension d, for which the ratio r of second to first neighbor distances has P(r > x) = x^-d [0], in float64.

    log r is exponential with rate d. The largest ratios, which outliers distort, are censored by the maximum-likelihood
    estimate of [1] instead of [0]'s line fit: d = m / (sum of the m smallest + (n - m) times the largest of them),
    whose error is that of m independent points. Duplicates count once.
    Raises ValueError for fewer than ten different points, and for points that are not finite.
    """
    if not 0 < kept <= 1:
        raise ValueError(f"The share of points must be above 0 and at most 1, got {kept}.")
    if not torch.isfinite(x).all():
        raise ValueError("The latents contain NaN or infinity. Check the tokenizer before measuring it.")
    points = x.double().flatten(1).unique(dim=0)
    if len(points) < 10:
        raise ValueError(f"A dimension needs at least ten different points, got {len(points)}.")
    points = points - points.mean(dim=0)
    ratios = (
        torch.cat([log_ratios(part, points, first=ROWS * i) for i, part in enumerate(points.split(ROWS))]).sort().values
    )
    m = max(2, int(kept * len(ratios)))
    total = ratios[:m].sum() + (len(ratios) - m) * ratios[m - 1]
    value, relative = (m / total).item(), ROUNDED_NORMAL_QUANTILE / m**0.5
    return Dimension(value=value, low=value * (1 - relative), high=value * (1 + relative), num_points=len(points))


def log_ratios(
    part: Tensor,  # (b, D)
    points: Tensor,  # (n, D): `part` starts at row `first`
    *,
    first: int,
) -> Tensor:  # (b,)
    """log(second / first neighbor distance) of some points.

    Neighbors are found by a fast distance and measured by an exact one.
    """
    distances = torch.cdist(part, points)
    rows = torch.arange(len(part))
    distances[rows, rows + first] = torch.inf
    near = distances.topk(2, largest=False).indices  # (b, 2)
    exact = (points[near] - part[:, None]).norm(dim=2).sort(dim=1).values
    return (exact[:, 1] / exact[:, 0]).log()
