"""Frechet distances between two sets of images, in float64.

[0] Dowson and Landau, The Frechet Distance between Multivariate Normal Distributions, 1982,
    https://doi.org/10.1016/0047-259X(82)90077-X
[1] Heusel et al., GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium, 2017,
    https://arxiv.org/abs/1706.08500
[2] Nash et al., Generating Images with Sparse Representations, 2021, https://arxiv.org/abs/2103.03841 (sFID)
"""

from typing import ClassVar

import torch
from torch import Tensor

from ldbench.core.interfaces import Estimate
from ldbench.core.intervals import jackknife
from ldbench.metrics.feature_set import FeatureSet
from ldbench.metrics.moments import Gaussian, SetGaussian

ROUNDING = 1e-8  # share of the largest eigenvalue below which rounding dominates


class FrechetDistance:
    """The distance between Gaussians fitted to the features of whole images: FID's formula [1].

    The interval is by a jackknife that leaves out a tenth of the images. On finite sets every Frechet distance is
    biased upwards, more so with fewer images; the interval is for this number of images.
    """

    revision: ClassVar[int] = 1
    requires: ClassVar[frozenset[str]] = frozenset({"normal"})
    is_distance: ClassVar[bool] = True
    higher_is_better: ClassVar[bool | None] = False

    def __call__(self, samples: FeatureSet, reference: FeatureSet, *, paired: bool) -> Estimate:
        """The distance with its interval."""
        return distance_with_interval(samples.get("normal"), reference.get("normal"), paired=paired)


class SpatialFrechetDistance:
    """The distance on spatial features, all positions of an image in one vector: sFID's formula [2]."""

    revision: ClassVar[int] = 1
    requires: ClassVar[frozenset[str]] = frozenset({"spatial"})
    is_distance: ClassVar[bool] = True
    higher_is_better: ClassVar[bool | None] = False

    def __call__(self, samples: FeatureSet, reference: FeatureSet, *, paired: bool) -> Estimate:
        """The distance with its interval."""
        return distance_with_interval(samples.get("spatial"), reference.get("spatial"), paired=paired)


def distance_with_interval(samples: SetGaussian, reference: SetGaussian, *, paired: bool) -> Estimate:
    """The distance, with a jackknife that leaves out each part of the samples, and of paired sets the same part of
    the reference.
    """
    parts = range(len(samples.parts)) if len(samples.parts) > 1 else range(0)
    if paired and len(samples.parts) != len(reference.parts):
        raise ValueError(
            f"Paired sets have the same number of parts, got {len(samples.parts)} and {len(reference.parts)}."
        )
    value = frechet_distance(samples.whole, reference.whole)
    replicates = [
        frechet_distance(samples.without(part), reference.without(part) if paired else reference.whole)
        for part in parts
    ]
    return jackknife(value, replicates, lower_bound=0.0)


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """The squared Frechet distance of two Gaussians [0].

    |mean_a - mean_b|^2 + tr cov_a + tr cov_b - 2 tr (cov_a^1/2 cov_b cov_a^1/2)^1/2. With cov = R'R the last trace is
    the sum of the singular values of R_a R_b' for any such factors: no matrix square root is needed, and covariances
    may have any rank. The distance of equal Gaussians is zero. Raises ValueError for features of different widths.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(
            f"A Frechet distance compares features of the same width, got {tuple(a.mean.shape)} and "
            f"{tuple(b.mean.shape)}."
        )
    if torch.equal(a.mean, b.mean) and torch.equal(a.covariance, b.covariance):
        return 0.0
    shared = nuclear_norm(a.root @ b.root.T)
    spread = a.covariance.trace() + b.covariance.trace() - 2 * shared
    return max(0.0, ((a.mean - b.mean).square().sum() + spread).item())


def nuclear_norm(
    matrix: Tensor,  # (n, m)
) -> Tensor:  # ()
    """The sum of the singular values, as accurate as an SVD in half of its time.

    Rotated onto the eigenvectors of M M', the rows of M have the singular values as lengths. Where eigenvalues are so
    small that squaring loses the values in rounding, the rotated rows are orthogonal to the others but not to each
    other: only these rows go through an SVD.
    """
    matrix = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    squares, axes = torch.linalg.eigh(matrix @ matrix.T)
    rotated, tiny = axes.T @ matrix, squares < ROUNDING * squares[-1:]
    lengths = rotated[~tiny].norm(dim=1).sum()
    return lengths + torch.linalg.svdvals(rotated[tiny]).sum() if tiny.any() else lengths
