"""Kernel distance (KID): the squared maximum mean discrepancy of two sets under a cubic kernel.

[0] Binkowski et al., Demystifying MMD GANs, 2018, https://arxiv.org/abs/1801.01401
[1] Gretton et al., A Kernel Two-Sample Test, 2012, https://jmlr.org/papers/v13/gretton12a.html (lemma 6: unbiased
    estimates)
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ldbench.core.interfaces import Estimate
from ldbench.core.intervals import jackknife
from ldbench.metrics.feature_set import PARTS, FeatureSet

BLOCK = 2048  # rows of the kernel matrix in memory


class KernelDistance:
    """The unbiased estimate of [1] with the kernel (x'y / D + 1)^3 of [0] over all pairs of images; it may be slightly
    negative.

    [0] and torch-fidelity average it over random subsets of 1000 images, which estimates the same number with a larger
    variance. In paired sets an image and its reconstruction are not independent and are left out as a pair: equal sets
    then have distance 0. The interval is by a jackknife that leaves out a tenth of the images.
    """

    revision: ClassVar[int] = 1
    requires: ClassVar[frozenset[str]] = frozenset({"features"})
    is_distance: ClassVar[bool] = True
    higher_is_better: ClassVar[bool | None] = False

    def __call__(self, samples: FeatureSet, reference: FeatureSet, *, paired: bool) -> Estimate:
        """The distance with its interval. Raises ValueError for fewer than two images."""
        x, y = samples.get("features"), reference.get("features")
        if min(len(x), len(y)) < 2:
            raise ValueError(f"A kernel distance needs at least two images in each set, got {len(x)} and {len(y)}.")
        part_x, part_y = samples.get("part"), reference.get("part")
        within_x, within_y = all_pairs(x, x, part_x, part_x), all_pairs(y, y, part_y, part_y)
        within_x, within_y = within_x.minus(same_rows(x, x, part_x)), within_y.minus(same_rows(y, y, part_y))
        across = all_pairs(x, y, part_x, part_y)
        if paired:
            in_both, rows_x, rows_y = matching_rows(samples.get("indices"), reference.get("indices"))
            across = across.minus(same_rows(x[rows_x], y[rows_y], part_x[in_both]))
        all_parts = torch.arange(PARTS)

        def discrepancy(keep_x: Tensor, keep_y: Tensor) -> float:
            return within_x.mean(keep_x, keep_x) + within_y.mean(keep_y, keep_y) - 2 * across.mean(keep_x, keep_y)

        num_parts = PARTS if len(part_x.unique()) == PARTS and len(part_y) >= 2 * PARTS else 0
        others = [(all_parts != part).nonzero()[:, 0] for part in range(num_parts)]
        replicates = [discrepancy(keep, keep if paired else all_parts) for keep in others]
        return jackknife(discrepancy(all_parts, all_parts), replicates)


@dataclass(frozen=True)
class Pairs:
    """Kernel sums over pairs of images, by the parts of the two images."""

    total: Tensor  # (PARTS, PARTS) float64
    count: Tensor  # (PARTS, PARTS), of pairs

    def minus(self, other: "Pairs") -> "Pairs":
        """The sums without the pairs of `other`."""
        return Pairs(self.total - other.total, self.count - other.count)

    def mean(self, first: Tensor, second: Tensor) -> float:
        """The mean kernel over the pairs of an image in the parts `first` and one in the parts `second`."""
        return (self.total[first][:, second].sum() / self.count[first][:, second].sum()).item()


def all_pairs(
    x: Tensor,  # (n, D)
    y: Tensor,  # (m, D)
    part_x: Tensor,  # (n,) the part of each row
    part_y: Tensor,  # (m,)
) -> Pairs:
    """The sums over all pairs of a row of x and a row of y."""
    total, member, y = torch.zeros(PARTS, PARTS, dtype=torch.float64), one_hot(part_y, PARTS).double(), y.double()
    for rows, part in zip(x.split(BLOCK), part_x.split(BLOCK)):
        total.index_add_(0, part, ((rows.double() @ y.T / x.shape[1] + 1) ** 3) @ member)
    return Pairs(total, torch.outer(torch.bincount(part_x, minlength=PARTS), torch.bincount(part_y, minlength=PARTS)))


def same_rows(
    x: Tensor,  # (n, D)
    y: Tensor,  # (n, D)
    part: Tensor,  # (n,)
) -> Pairs:
    """The sums over pairs of row i of x and row i of y."""
    values = ((x.double() * y.double()).sum(dim=1) / x.shape[1] + 1) ** 3
    total = torch.zeros(PARTS, dtype=torch.float64).index_add_(0, part, values)
    return Pairs(torch.diag(total), torch.diag(torch.bincount(part, minlength=PARTS)))


def matching_rows(indices_x: Tensor, indices_y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A mask of the rows of the first set whose image is in the second too, and the row numbers of these images in
    each set.
    """
    row_of = torch.full((int(max(indices_x.max(), indices_y.max())) + 1,), -1)
    row_of[indices_y] = torch.arange(len(indices_y))
    in_both = row_of[indices_x] >= 0
    return in_both, in_both.nonzero()[:, 0], row_of[indices_x][in_both]
