"""Fidelity and diversity by nearest neighbours: precision, recall, density and coverage.

A set's manifold is the union of balls around its images that reach to the k-th nearest other one. Distances are squared, in float64; what
lies on the border of a ball but for rounding lies inside.

[0] Kynkaanniemi et al., Improved Precision and Recall Metric for Assessing Generative Models, 2019, https://arxiv.org/abs/1904.06991
[1] Naeem et al., Reliable Fidelity and Diversity Metrics for Generative Models, 2020, https://arxiv.org/abs/2002.09797
[2] Dhariwal and Nichol, Diffusion Models Beat GANs on Image Synthesis, 2021, https://arxiv.org/abs/2105.05233 (precision and recall with k = 3)
"""

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from ldbench.core.interfaces import Estimate
from ldbench.core.intervals import proportion, student_mean
from ldbench.metrics.feature_set import FeatureSet

BLOCK = 1024  # rows of distances that are held at once
ROUNDING = 1e-11  # of the two squared lengths


class Neighbours:
    """What the four have in common: they look at the `k` nearest neighbours."""

    revision: ClassVar[int] = 1
    requires: ClassVar[frozenset[str]] = frozenset({"features"})
    is_distance: ClassVar[bool] = False
    higher_is_better: ClassVar[bool | None] = True
    settings: ClassVar[tuple[str, ...]] = ("k",)

    def __init__(self, *, k: int):
        if k < 1:
            raise ValueError(f"k must be a neighbour, 1 or more, got {k}.")
        self.k = k


class Precision(Neighbours):
    """The share of samples within the manifold of the reference [0]. The interval is over samples, for this reference."""

    def __call__(self, samples: FeatureSet, reference: FeatureSet, *, paired: bool) -> Estimate:
        x, y = centred(samples, reference, self.k)
        return proportion(torch.cat([block.any(dim=1) for block in inside(x, y, radii(y, self.k))]))


class Recall(Neighbours):
    """The share of reference images within the manifold of the samples [0]. The interval is over reference images, for these samples."""

    def __call__(self, samples: FeatureSet, reference: FeatureSet, *, paired: bool) -> Estimate:
        x, y = centred(samples, reference, self.k)
        return proportion(torch.cat([block.any(dim=1) for block in inside(y, x, radii(x, self.k))]))


class Density(Neighbours):
    """In how many of the reference's balls a sample lies on average, over k [1]: about 1 for equal laws. The interval is over samples."""

    def __call__(self, samples: FeatureSet, reference: FeatureSet, *, paired: bool) -> Estimate:
        x, y = centred(samples, reference, self.k)
        return student_mean(torch.cat([block.sum(dim=1) for block in inside(x, y, radii(y, self.k))]).double() / self.k)


class Coverage(Neighbours):
    """The share of the reference's balls that hold a sample [1]. The interval is over reference images, for these samples."""

    def __call__(self, samples: FeatureSet, reference: FeatureSet, *, paired: bool) -> Estimate:
        x, y = centred(samples, reference, self.k)
        hit = torch.zeros(len(y), dtype=torch.bool)
        for block in inside(x, y, radii(y, self.k)):
            hit |= block.any(dim=0)
        return proportion(hit)


def centred(samples: FeatureSet, reference: FeatureSet, k: int) -> tuple[Tensor, Tensor]:  # (n, D), (m, D) float64
    """The features of both about the mean of the reference. Raises ValueError for sets with fewer than k + 1 images."""
    x, y = samples.get("features").double(), reference.get("features").double()
    fewest = min(len(x), len(y))
    if fewest <= k:
        raise ValueError(
            f"The nearest {k} neighbours of an image need sets of {k + 1} or more, got {fewest}. Choose a smaller k, or more images."
        )
    mean = y.mean(dim=0)
    return x - mean, y - mean


def radii(x: Tensor, k: int) -> Tensor:  # (n, D) -> (n,)
    """The squared distance of each to its k-th nearest other."""
    lengths, found = x.square().sum(dim=1), []
    for first in range(0, len(x), BLOCK):
        rows = x[first : first + BLOCK]
        apart = torch.addmm(lengths, rows, x.T, alpha=-2).add_(lengths[first : first + BLOCK, None])
        apart[torch.arange(len(rows)), torch.arange(first, first + len(rows))] = torch.inf
        found.append(apart.kthvalue(k, dim=1).values)
    return torch.cat(found).clamp(min=0)


def inside(
    x: Tensor,  # (n, D)
    y: Tensor,  # (m, D)
    radius: Tensor,  # (m,) squared
) -> Iterator[Tensor]:  # (B, m) bool
    """Whether points lie in the balls around others, by blocks of points."""
    lengths = y.square().sum(dim=1)
    for rows in x.split(BLOCK):
        own = rows.square().sum(dim=1, keepdim=True)
        apart = torch.addmm(lengths, rows, y.T, alpha=-2).add_(own)
        yield apart <= radius + ROUNDING * (own + lengths)
