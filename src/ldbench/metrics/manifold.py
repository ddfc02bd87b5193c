"""Fidelity and diversity by nearest neighbors: precision, recall, density and coverage.

A set's manifold is the union of balls around its images, each with the distance to the k-th nearest other image as its
radius. Distances are squared, in float64; points on the boundary of a ball up to rounding count as inside.

[0] Kynkaanniemi et al., Improved Precision and Recall Metric for Assessing Generative Models, 2019,
    https://arxiv.org/abs/1904.06991
[1] Naeem et al., Reliable Fidelity and Diversity Metrics for Generative Models, 2020, https://arxiv.org/abs/2002.09797
[2] Dhariwal and Nichol, Diffusion Models Beat GANs on Image Synthesis, 2021, https://arxiv.org/abs/2105.05233
    (precision and recall with k = 3)
"""

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from ldbench.core.interfaces import Estimate
from ldbench.core.intervals import proportion, student_mean
from ldbench.metrics.feature_set import FeatureSet

BLOCK = 1024  # rows of the distance matrix in memory
ROUNDING = 1e-11  # share of the two squared norms


class NearestNeighborMetric:
    """Base of the four metrics: they use the `k` nearest neighbors."""

    revision: ClassVar[int] = 1
    requires: ClassVar[frozenset[str]] = frozenset({"features"})
    is_distance: ClassVar[bool] = False
    higher_is_better: ClassVar[bool | None] = True
    settings: ClassVar[tuple[str, ...]] = ("k",)

    def __init__(self, *, k: int):
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}.")
        self.k = k


class Precision(NearestNeighborMetric):
    """The share of samples within the manifold of the reference [0]. The interval is over samples, for this
    reference.
    """

    def __call__(self, samples: FeatureSet, reference: FeatureSet, *, paired: bool) -> Estimate:
        """The share of samples, with Wilson's interval."""
        x, y = centered(samples, reference, self.k)
        return proportion(torch.cat([block.any(dim=1) for block in inside(x, y, radii(y, self.k))]))


class Recall(NearestNeighborMetric):
    """The share of reference images within the manifold of the samples [0].

    The interval is over reference images, for these samples.
    """

    def __call__(self, samples: FeatureSet, reference: FeatureSet, *, paired: bool) -> Estimate:
        """The share of reference images, with Wilson's interval."""
        x, y = centered(samples, reference, self.k)
        return proportion(torch.cat([block.any(dim=1) for block in inside(y, x, radii(x, self.k))]))


class Density(NearestNeighborMetric):
    """The mean number of reference balls that contain a sample, over k [1]: about 1 for equal distributions.

    The interval is over samples.
    """

    def __call__(self, samples: FeatureSet, reference: FeatureSet, *, paired: bool) -> Estimate:
        """The mean over samples, with Student's interval."""
        x, y = centered(samples, reference, self.k)
        return student_mean(torch.cat([block.sum(dim=1) for block in inside(x, y, radii(y, self.k))]).double() / self.k)


class Coverage(NearestNeighborMetric):
    """The share of reference balls that contain a sample [1]. The interval is over reference images, for these
    samples.
    """

    def __call__(self, samples: FeatureSet, reference: FeatureSet, *, paired: bool) -> Estimate:
        """The share of reference images, with Wilson's interval."""
        x, y = centered(samples, reference, self.k)
        covered = torch.zeros(len(y), dtype=torch.bool)
        for block in inside(x, y, radii(y, self.k)):
            covered |= block.any(dim=0)
        return proportion(covered)


def centered(samples: FeatureSet, reference: FeatureSet, k: int) -> tuple[Tensor, Tensor]:  # (n, D), (m, D) float64
    """The features of both sets minus the mean of the reference.

    Raises ValueError for sets with fewer than k + 1 images.
    """
    x, y = samples.get("features").double(), reference.get("features").double()
    smallest = min(len(x), len(y))
    if smallest <= k:
        raise ValueError(
            f"The {k} nearest neighbors of an image need sets of at least {k + 1} images, got {smallest}. "
            "Choose a smaller k, or more images."
        )
    mean = y.mean(dim=0)
    return x - mean, y - mean


def radii(x: Tensor, k: int) -> Tensor:  # (n, D) -> (n,)
    """The squared distance of each point to its k-th nearest other point."""
    norms, kth = x.square().sum(dim=1), []
    for first in range(0, len(x), BLOCK):
        rows = x[first : first + BLOCK]
        distances = torch.addmm(norms, rows, x.T, alpha=-2).add_(norms[first : first + BLOCK, None])
        distances[torch.arange(len(rows)), torch.arange(first, first + len(rows))] = torch.inf
        kth.append(distances.kthvalue(k, dim=1).values)
    return torch.cat(kth).clamp(min=0)


def inside(
    x: Tensor,  # (n, D)
    y: Tensor,  # (m, D)
    radius: Tensor,  # (m,) squared
) -> Iterator[Tensor]:  # (B, m) bool
    """Whether each point x lies in each ball around y, by blocks of x."""
    norms = y.square().sum(dim=1)
    for rows in x.split(BLOCK):
        row_norms = rows.square().sum(dim=1, keepdim=True)
        distances = torch.addmm(norms, rows, y.T, alpha=-2).add_(row_norms)
        yield distances <= radius + ROUNDING * (row_norms + norms)
