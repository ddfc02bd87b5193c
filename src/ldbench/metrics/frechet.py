"""Frechet distances of two sets of images, in float64.

[0] Dowson and Landau, The Frechet Distance between Multivariate Normal Distributions, 1982, https://doi.org/10.1016/0047-259X(82)90077-X
[1] Heusel et al., GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium, 2017, https://arxiv.org/abs/1706.08500
[2] Nash et al., Generating Images with Sparse Representations, 2021, https://arxiv.org/abs/2103.03841 (sFID)
"""

from typing import ClassVar

import torch
from torch import Tensor

from ldbench.core.interfaces import Estimate
from ldbench.core.intervals import jackknife
from ldbench.metrics.feature_set import FeatureSet
from ldbench.metrics.moments import Gaussian, Normal

HIDDEN = 1e-8  # of the largest square: from there on rounding counts


class FrechetDistance:
    """Of the features of whole images: FID's formula [1]. The interval is of a jackknife over a tenth of the images.

    Like every Frechet distance of finite sets it is larger than that of the laws behind them, the more so the fewer images there are; the
    interval is of the number at this size.
    """

    revision: ClassVar[int] = 1
    requires: ClassVar[frozenset[str]] = frozenset({"normal"})
    is_distance: ClassVar[bool] = True
    higher_is_better: ClassVar[bool | None] = False

    def __call__(self, samples: FeatureSet, reference: FeatureSet, *, paired: bool) -> Estimate:
        return with_interval(samples.get("normal"), reference.get("normal"), paired=paired)


class SpatialFrechetDistance:
    """Of the features at each place of images, in one row: sFID's formula [2]."""

    revision: ClassVar[int] = 1
    requires: ClassVar[frozenset[str]] = frozenset({"spatial"})
    is_distance: ClassVar[bool] = True
    higher_is_better: ClassVar[bool | None] = False

    def __call__(self, samples: FeatureSet, reference: FeatureSet, *, paired: bool) -> Estimate:
        return with_interval(samples.get("spatial"), reference.get("spatial"), paired=paired)


def with_interval(samples: Normal, reference: Normal, *, paired: bool) -> Estimate:
    """The distance; each part of the samples is left out in turn, and where they are paired, the images that they are made of with it."""
    parts = range(len(samples.parts)) if len(samples.parts) > 1 else range(0)
    if paired and len(samples.parts) != len(reference.parts):
        raise ValueError(f"Paired sets have the same parts, got {len(samples.parts)} and {len(reference.parts)}.")
    value = frechet_distance(samples.whole, reference.whole)
    without = [
        frechet_distance(samples.without(part), reference.without(part) if paired else reference.whole)
        for part in parts
    ]
    return jackknife(value, without, lower_bound=0.0)


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """The squared Frechet distance of two normal laws [0].

    |mean_a - mean_b|^2 + tr cov_a + tr cov_b - 2 tr (cov_a^1/2 cov_b cov_a^1/2)^1/2. With cov = R'R the last trace is the sum of the
    singular values of R_a R_b', whatever the factors: no square root of a matrix is taken, and covariances may have any rank. The distance
    of equal laws is zero. Raises ValueError for laws of different widths.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(
            f"A Frechet distance compares features of one width, got {tuple(a.mean.shape)} and {tuple(b.mean.shape)}."
        )
    if torch.equal(a.mean, b.mean) and torch.equal(a.covariance, b.covariance):
        return 0.0
    shared = nuclear_norm(a.root @ b.root.T)
    spread = a.covariance.trace() + b.covariance.trace() - 2 * shared
    return max(0.0, ((a.mean - b.mean).square().sum() + spread).item())


def nuclear_norm(
    matrix: Tensor,  # (n, m)
) -> Tensor:  # ()
    """The sum of the singular values, as exact as by their decomposition in half of its time.

    Its rows are turned along the eigenvectors of M M', and their lengths are the singular values. Where eigenvalues are so small that squares
    hide the values in rounding, the turned rows are orthogonal to the others but not to each other: the decomposition is of them alone.
    """
    matrix = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    squares, axes = torch.linalg.eigh(matrix @ matrix.T)
    turned, hidden = axes.T @ matrix, squares < HIDDEN * squares[-1:]
    lengths = turned[~hidden].norm(dim=1).sum()
    return lengths + torch.linalg.svdvals(turned[hidden]).sum() if hidden.any() else lengths
