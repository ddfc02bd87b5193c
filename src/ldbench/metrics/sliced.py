"""Sliced Wasserstein distances: features of two sets, sorted along random directions.

[0] MIND, 2026, https://arxiv.org/abs/2605.06797
[1] Rabin et al., Wasserstein Barycenter and Its Application to Texture Mixing, 2011,
    https://doi.org/10.1007/978-3-642-24785-9_37 (sliced Wasserstein distances)
"""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import ClassVar

import torch
from torch import Tensor

from ldbench.core.estimate import Estimate
from ldbench.core.intervals import jackknife
from ldbench.metrics.feature_set import PAIRS, PARTS, FeatureSet

BLOCK = 100  # directions at a time
SPLITS = 8  # of the reference, over which a floor is averaged
SMALLEST_FLOOR = 40  # images of a reference, as for Frechet distances


class SlicedDistance:
    """MIND [0]: 3 D times the mean, over random directions, of the mean squared gap between sorted projections.

    The mean over directions is the squared sliced 2-Wasserstein distance; D, the width of the features, turns the
    mean square of a projection into that of a vector, and 3 is [0]'s. Both sets are cut to the same number of images
    by a random order of the seed. Directions are drawn by torch, so that a value differs from that of other code by
    its spread over directions. Of two sets of one law it is above 0, the more so the fewer images: `floor` says how
    much. Paired sets are compared on the images that both have. The interval is by a jackknife that leaves out a tenth
    of the samples, for these images of the reference and these directions. In simulations it covers the mean in 96 % of
    repetitions for balanced labels, and in 90 % for random ones of classes that lie apart.
    """

    revision: ClassVar[int] = 1
    requires: ClassVar[frozenset[str]] = frozenset({"features"})
    reference_requires: ClassVar[frozenset[str]] = frozenset({"labels"})
    settings: ClassVar[tuple[str, ...]] = ("num_projections", "seed")
    is_distance: ClassVar[bool] = True
    smallest_set: ClassVar[int] = 2  # images of a set
    higher_is_better: ClassVar[bool | None] = False

    def __init__(self, *, num_projections: int, seed: int):
        if num_projections < 1:
            raise ValueError(f"num_projections must be at least 1, got {num_projections}.")
        self.num_projections = num_projections
        self.seed = seed

    def __call__(self, samples: FeatureSet, reference: FeatureSet, *, paired: bool) -> Estimate:
        """The distance with its interval. Raises ValueError for fewer than two images."""
        x, y = (found.get("features") for found in (samples, reference))
        part_x, part_y = samples.get("part"), reference.get("part")
        if paired:
            in_x, in_y = common_rows(samples.get("indices"), reference.get("indices"))
            x, y, part_x, part_y = x[in_x], y[in_y], part_x[in_x], part_y[in_y]
        size = min(len(x), len(y))
        if size < 2:
            raise ValueError(f"A sliced distance needs at least two images in each set, got {len(x)} and {len(y)}.")
        (x, part_x), (y, part_y) = (self.cut(*rows, size) for rows in ((x, part_x), (y, part_y)))
        divided = len(part_x.unique()) == PARTS
        subsets = [(), *((part,) for part in range(PARTS)), *PAIRS] if divided else [()]
        masks = [torch.isin(part_x, torch.tensor(parts), invert=True) for parts in subsets]
        # of unpaired sets as many images of the reference, always the first ones: it does not vary
        masks_y = masks if paired else [torch.arange(size) < mask.sum() for mask in masks]
        values = self.distances(x, y, list(zip(masks, masks_y, strict=True)))
        return jackknife(
            values[0],
            values[1 : 1 + PARTS],
            pairs=dict(zip(PAIRS, values[1 + PARTS :], strict=divided)),
            lower_bound=0.0,
        )

    def floor(self, reference: FeatureSet, *, num_samples: int, balanced: bool) -> float | None:
        """The distance that a perfect generator has on average: that many samples of the law of the reference.

        The mean distance of disjoint parts of the reference, one of which has balanced labels where samples have them.
        Parts are at most halves, with balanced labels thirds, since more of them could not be balanced; a larger
        number of images is extrapolated from these and parts of half their size by a power of n: where classes lie
        apart, the distance falls more slowly than as 1 / n. None for a reference that is too small, without features,
        or without the labels that samples have.
        """
        if reference.features is None or (balanced and reference.labels is None):
            return None
        x, count = reference.features, len(reference.features)
        if count < SMALLEST_FLOOR:
            return None
        size, largest = min(num_samples, count), count // (3 if balanced else 2)
        classes = reference.get("labels")[reference.get("indices")] if balanced else torch.zeros(count).long()
        rng = torch.Generator().manual_seed(self.seed)
        sizes = [size] if size <= largest else [largest, largest // 2]
        values = self.distances(x, x, [two_parts(classes, each, rng) for each in sizes for _ in range(SPLITS)])
        if size <= largest:
            return fmean(values)
        whole, half = fmean(values[:SPLITS]), fmean(values[SPLITS:])
        power = math.log(half / whole) / math.log(sizes[1] / sizes[0]) if whole > 0 else 0.0
        return whole * (size / largest) ** power

    def cut(
        self,
        x: Tensor,  # (n, D)
        part: Tensor,  # (n,)
        size: int,
    ) -> tuple[Tensor, Tensor]:
        """The first rows in a random order of the seed; equal numbers of rows have equal orders."""
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(self.seed))[:size]
        return x[order], part[order]

    def distances(
        self,
        x: Tensor,  # (n, D)
        y: Tensor,  # (m, D)
        subsets: Sequence[tuple[Tensor, Tensor]],  # masks of equally many rows of both, (n,) and (m,)
    ) -> list[float]:
        """The distance of each pair of subsets. Rows are projected and sorted once."""
        width, totals = x.shape[1], torch.zeros(len(subsets), dtype=torch.float64)
        rng = torch.Generator().manual_seed(self.seed)
        for first in range(0, self.num_projections, BLOCK):
            count = min(BLOCK, self.num_projections - first)
            directions = torch.randn(width, count, generator=rng, dtype=torch.float64)
            directions /= directions.norm(dim=0)
            (x_sorted, x_order), (y_sorted, y_order) = ((rows.double() @ directions).T.sort() for rows in (x, y))
            for index, (mask_x, mask_y) in enumerate(subsets):
                kept_x = x_sorted[mask_x[x_order]].view(count, -1)
                kept_y = y_sorted[mask_y[y_order]].view(count, -1)
                totals[index] += (kept_x - kept_y).square().mean(dim=1).sum()
        return (3 * width / self.num_projections * totals).tolist()


def common_rows(indices_x: Tensor, indices_y: Tensor) -> tuple[Tensor, Tensor]:
    """The row numbers in each set of the images that are in both; indices ascend."""
    return torch.isin(indices_x, indices_y).nonzero()[:, 0], torch.isin(indices_y, indices_x).nonzero()[:, 0]


def two_parts(
    classes: Tensor,  # (n,)
    size: int,
    rng: torch.Generator,
) -> tuple[Tensor, Tensor]:  # (n,) bool
    """Masks of two disjoint random parts of `size` images; the first has as many of each class, as far as there are."""
    order = torch.randperm(len(classes), generator=rng)
    second, rest = order[:size], order[size:]  # the second first: what a balanced part leaves is not random
    grouped = rest[classes[rest].argsort(stable=True)]
    starts = torch.cat([torch.zeros(1, dtype=torch.long), classes[rest].bincount().cumsum(0)[:-1]])
    rank = torch.empty_like(order)
    rank[grouped] = torch.arange(len(rest)) - starts[classes[grouped]]  # of an image in its class, by chance
    first = rest[rank[rest].argsort(stable=True)][:size]
    masks = torch.zeros(2, len(classes), dtype=torch.bool)
    masks[0, first], masks[1, second] = True, True
    return masks[0], masks[1]
