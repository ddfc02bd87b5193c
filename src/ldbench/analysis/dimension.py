"""Intrinsic dimension: the dimension of the manifold of latents, by TwoNN.

[0] Facco et al., Estimating the Intrinsic Dimension of Datasets by a Minimal Neighborhood Information, 2017,
    https://arxiv.org/abs/1803.06992
[1] Epstein and Sobel, Life Testing, 1953, https://doi.org/10.1080/01621459.1953.10483488 (exponential distribution with
    right-censored values)
[2] Conley, GMM Estimation with Cross Sectional Dependence, 1999, https://doi.org/10.1016/S0304-4076(98)00084-0
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ldbench.core.intervals import NORMAL_QUANTILE

SMALLEST = 1e-3  # below which a relative error of nearly 1 gives no upper end
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

    log r is exponential with rate d. The largest ratios, which outliers distort, are censored as in [1] instead of
    [0]'s line fit: d = (m - 1) / (sum of the m smallest + (n - m) times the largest of them), which is unbiased for
    independent ratios. Ratios of nearest neighbors are not independent, and the interval counts their products too: its
    error is that of the estimating equation, with pairs of neighbors as clusters [2]. On manifolds of many dimensions,
    whose points lie near their boundary, the estimate is too low [0]; this is not corrected. Duplicates count once.
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
    found = [log_ratios(part, points, first=ROWS * i) for i, part in enumerate(points.split(ROWS))]
    ratios, nearest = (torch.cat(parts) for parts in zip(*found, strict=True))
    m = max(2, int(kept * len(ratios)))
    largest = ratios.sort().values[m - 1]
    total = ratios.clamp(max=largest).sum().item()
    value = (m - 1) / total
    # of each point, what it adds to the estimating equation m - d total = 0
    scores = (ratios <= largest).double() - m / total * ratios.clamp(max=largest)
    here = torch.arange(len(ratios))
    pairs = torch.stack([torch.minimum(here, nearest), torch.maximum(here, nearest)]).unique(dim=1)
    variance = (scores.square().sum() + 2 * (scores[pairs[0]] * scores[pairs[1]]).sum()).item()
    relative = NORMAL_QUANTILE * max(variance, m) ** 0.5 / m
    return Dimension(value, value / (1 + relative), value / max(1 - relative, SMALLEST), num_points=len(points))


def log_ratios(
    part: Tensor,  # (b, D)
    points: Tensor,  # (n, D): `part` starts at row `first`
    *,
    first: int,
) -> tuple[Tensor, Tensor]:  # (b,) and (b,)
    """log(second / first neighbor distance) of some points, and the row of the first neighbor.

    Neighbors are found by a fast distance and measured by an exact one.
    """
    distances = torch.cdist(part, points)
    rows = torch.arange(len(part))
    distances[rows, rows + first] = torch.inf
    near = distances.topk(2, largest=False).indices  # (b, 2)
    exact, order = (points[near] - part[:, None]).norm(dim=2).sort(dim=1)
    return (exact[:, 1] / exact[:, 0]).log(), near.gather(1, order[:, :1])[:, 0]
