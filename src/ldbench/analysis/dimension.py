"""Intrinsic dimension: how many numbers it takes to say where on its manifold a latent lies, by TwoNN.

[0] Facco et al., Estimating the Intrinsic Dimension of Datasets by a Minimal Neighborhood Information, 2017, https://arxiv.org/abs/1803.06992
[1] Epstein and Sobel, Life Testing, 1953, https://doi.org/10.1080/01621459.1953.10483488 (exponential law, the largest values cut off)
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ldbench.core.intervals import ROUNDED_NORMAL_QUANTILE

ROWS = 1024  # points whose distances to all others are held at once


@dataclass(frozen=True)
class Dimension:
    """The dimension, with the ends of its 95 % interval, and the points that tell it."""

    value: float
    low: float
    high: float
    num_points: int  # without duplicates


def two_nn(
    x: Tensor,  # (n, D)
    *,
    kept: float,  # the share of the points, with the smallest ratios, that count: [0] keeps 0.9
) -> Dimension:
    """The dimension d for which the ratio of a point's second to its first neighbour's distance has the law r^-d [0], in float64.

    log r is exponential with rate d, so that the largest ratios, which outliers spoil, are cut off by the exact estimate for cut-off samples [1]
    in place of [0]'s line fit: d = m / (sum of the m smallest + (n - m) times the largest of them), whose error is that of m independent points.
    Equal points count once. Raises ValueError for fewer than ten different points, and for points that are not finite.
    """
    if not 0 < kept <= 1:
        raise ValueError(f"The share of points that count must be above 0 and at most 1, got {kept}.")
    if not torch.isfinite(x).all():
        raise ValueError(
            "Latents hold numbers that are not finite (NaN or infinity). Look at the tokenizer before measuring it."
        )
    points = x.double().flatten(1).unique(dim=0)
    if len(points) < 10:
        raise ValueError(f"A dimension needs ten different points or more, got {len(points)}.")
    points = points - points.mean(dim=0)
    ratios = (
        torch.cat([log_ratios(part, points, first=ROWS * i) for i, part in enumerate(points.split(ROWS))]).sort().values
    )
    m = max(2, int(kept * len(ratios)))
    told = ratios[:m].sum() + (len(ratios) - m) * ratios[m - 1]
    value, spread = (m / told).item(), ROUNDED_NORMAL_QUANTILE / m**0.5
    return Dimension(value=value, low=value * (1 - spread), high=value * (1 + spread), num_points=len(points))


def log_ratios(
    part: Tensor,  # (b, D)
    points: Tensor,  # (n, D): `part` begins at row `first`
    *,
    first: int,
) -> Tensor:  # (b,)
    """log(second / first neighbour's distance) of some points. The two are looked up by a fast distance and measured by an exact one."""
    apart = torch.cdist(part, points)
    rows = torch.arange(len(part))
    apart[rows, rows + first] = torch.inf
    near = apart.topk(2, largest=False).indices  # (b, 2)
    exact = (points[near] - part[:, None]).norm(dim=2).sort(dim=1).values
    return (exact[:, 1] / exact[:, 0]).log()
