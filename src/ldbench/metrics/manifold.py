"""Fidelity and diversity by nearest neighbors: precision, recall, density and coverage.

A set's manifold is the union of balls around its images, each with the distance to the k-th nearest other image as its
radius. Distances are squared, in float64; points on the boundary of a ball up to rounding count as inside.

[0] Kynkaanniemi et al., Improved Precision and Recall Metric for Assessing Generative Models, 2019,
    https://arxiv.org/abs/1904.06991
[1] Naeem et al., Reliable Fidelity and Diversity Metrics for Generative Models, 2020, https://arxiv.org/abs/2002.09797
[2] Dhariwal and Nichol, Diffusion Models Beat GANs on Image Synthesis, 2021, https://arxiv.org/abs/2105.05233
    (precision and recall with k = 3)
[3] Efron and Stein, The Jackknife Estimate of Variance, 1981, https://doi.org/10.1214/aos/1176345462
"""

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from ldbench.core.estimate import Estimate
from ldbench.core.intervals import jackknife, proportion, student_mean
from ldbench.metrics.feature_set import PARTS, FeatureSet

BLOCK = 1024  # rows of the distance matrix in memory
NEAREST = 8  # times k neighbors are found at first: nearly always k of them are of the parts that are kept
ROUNDING = 1e-11  # share of the two squared norms


class NearestNeighborMetric:
    """Base of the four metrics: they use the `k` nearest neighbors. Intervals are over samples, for this reference.

    A reconstruction lies in the ball of its own original, however blurred it is: they say nothing about pairs.
    """

    revision: ClassVar[int] = 1
    of_pairs: ClassVar[bool] = False
    requires: ClassVar[frozenset[str]] = frozenset({"features"})
    is_distance: ClassVar[bool] = False
    higher_is_better: ClassVar[bool | None] = True
    settings: ClassVar[tuple[str, ...]] = ("k",)

    def __init__(self, *, k: int):
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}.")
        self.k = k
        self.smallest_set = k + 1  # images of a set


class Precision(NearestNeighborMetric):
    """The share of samples within the manifold of the reference [0]."""

    def __call__(self, samples: FeatureSet, reference: FeatureSet, *, paired: bool) -> Estimate:
        """The share of samples, with Wilson's interval."""
        x, y = centered(samples, reference, self.k)
        return proportion(torch.cat([block.any(dim=1) for block in inside(x, y, radii(y, self.k))]))


class Recall(NearestNeighborMetric):
    """The share of reference images within the manifold of the samples [0].

    The interval is by a jackknife that leaves out tenths of the samples: on average it is too wide, never too narrow
    [3].
    """

    revision: ClassVar[int] = 2

    def __call__(self, samples: FeatureSet, reference: FeatureSet, *, paired: bool) -> Estimate:
        """The share of reference images."""
        x, y = centered(samples, reference, self.k)
        part = samples.get("part")
        divided = parts_suffice(part, smallest=self.k + 1)
        hits = torch.zeros(1 + PARTS if divided else 1, dtype=torch.long)
        radius = radii_without_parts(x, self.k, part) if divided else radii(x, self.k)[None]
        for distances, rounding in distances_between(y, x):
            hits += torch.stack([(distances <= limits + rounding).any(dim=1).sum() for limits in radius])
        return share_without_parts(hits, len(y))


class Density(NearestNeighborMetric):
    """The mean number of reference balls that contain a sample, over k [1]: about 1 for equal distributions."""

    def __call__(self, samples: FeatureSet, reference: FeatureSet, *, paired: bool) -> Estimate:
        """The mean over samples, with Student's interval."""
        x, y = centered(samples, reference, self.k)
        return student_mean(torch.cat([block.sum(dim=1) for block in inside(x, y, radii(y, self.k))]).double() / self.k)


class Coverage(NearestNeighborMetric):
    """The share of reference balls that contain a sample [1]. The interval is by a jackknife, as that of `Recall`."""

    revision: ClassVar[int] = 2

    def __call__(self, samples: FeatureSet, reference: FeatureSet, *, paired: bool) -> Estimate:
        """The share of reference images."""
        x, y = centered(samples, reference, self.k)
        part = samples.get("part")
        counts = torch.zeros(PARTS, len(y))  # samples of each part in each ball
        for block, parts in zip(inside(x, y, radii(y, self.k)), part.split(BLOCK), strict=True):
            counts.index_add_(0, parts, block.float())
        total = counts.sum(dim=0)
        left = total - counts if parts_suffice(part, smallest=1) else counts[:0]
        return share_without_parts(torch.cat([total[None], left]).gt(0).sum(dim=1), len(y))


def parts_suffice(part: Tensor, *, smallest: int) -> bool:
    """Whether a set has all parts, and at least `smallest` images without any of them."""
    counts = torch.bincount(part, minlength=PARTS)
    return bool((counts > 0).all()) and len(part) - int(counts.max()) >= smallest


def share_without_parts(
    hits: Tensor,  # (1,) or (1 + PARTS,): of the whole set, and without each of its parts
    count: int,
) -> Estimate:
    """The share of hits, with the interval of a jackknife over parts.

    Its standard error is at least one hit: where nearly all or none are hit, no part may change any.
    """
    value, *replicates = (hits.double() / count).tolist()
    return jackknife(value, replicates, smallest_error=1 / count, lower_bound=0.0, upper_bound=1.0)


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
    return torch.cat([distances.kthvalue(k, dim=1).values for _, distances in distances_within(x)]).clamp(min=0)


def distances_within(x: Tensor) -> Iterator[tuple[int, Tensor]]:  # (n, D) -> (B, n)
    """The squared distances of points to all others, infinite to themselves, by blocks with their first row."""
    norms = x.square().sum(dim=1)
    for first in range(0, len(x), BLOCK):
        rows = x[first : first + BLOCK]
        distances = torch.addmm(norms, rows, x.T, alpha=-2).add_(norms[first : first + BLOCK, None])
        distances[torch.arange(len(rows)), torch.arange(first, first + len(rows))] = torch.inf
        yield first, distances


def radii_without_parts(
    x: Tensor,  # (n, D)
    k: int,
    part: Tensor,  # (n,)
) -> Tensor:  # (1 + PARTS, n)
    """The squared distance of each point to its k-th nearest other point: of all, and of all but those of each part.

    Points of the part that is left out have no ball: -inf.
    """
    radius = torch.empty(1 + PARTS, len(x), dtype=x.dtype)
    for first, distances in distances_within(x):
        nearest = distances.topk(min(NEAREST * k, len(x)), largest=False)
        rows = slice(first, first + len(distances))
        radius[0, rows] = nearest.values[:, k - 1]
        for left in range(PARTS):
            kept = (part[nearest.indices] != left).cumsum(dim=1)
            radius[1 + left, rows] = nearest.values.gather(
                1, (kept < k).sum(dim=1, keepdim=True).clamp(max=kept.shape[1] - 1)
            )[:, 0]
            few = kept[:, -1] < k
            if few.any():
                others = distances[few][:, part != left]
                radius[1 + left, rows][few] = others.kthvalue(k, dim=1).values
    radius.clamp_(min=0)
    radius[1:][part == torch.arange(PARTS)[:, None]] = -torch.inf
    return radius


def distances_between(
    x: Tensor,  # (n, D)
    y: Tensor,  # (m, D)
) -> Iterator[tuple[Tensor, Tensor]]:  # (B, m) each
    """The squared distances of points x from points y, and by how much rounding may raise each, by blocks of x."""
    norms = y.square().sum(dim=1)
    for rows in x.split(BLOCK):
        row_norms = rows.square().sum(dim=1, keepdim=True)
        yield torch.addmm(norms, rows, y.T, alpha=-2).add_(row_norms), ROUNDING * (row_norms + norms)


def inside(
    x: Tensor,  # (n, D)
    y: Tensor,  # (m, D)
    radius: Tensor,  # (m,) squared
) -> Iterator[Tensor]:  # (B, m) bool
    """Whether each point x lies in each ball around y, by blocks of x."""
    for distances, rounding in distances_between(x, y):
        yield distances <= radius + rounding
