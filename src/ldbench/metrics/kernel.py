"""Kernel distance (KID): the squared maximum mean discrepancy of two sets under a cubic kernel.

[0] Binkowski et al., Demystifying MMD GANs, 2018, https://arxiv.org/abs/1801.01401
[1] Gretton et al., A Kernel Two-Sample Test, 2012, https://jmlr.org/papers/v13/gretton12a.html (lemma 6: unbiased
    estimates)
"""

from typing import ClassVar

import torch
from torch import Tensor

from ldbench.core.estimate import Estimate
from ldbench.core.intervals import jackknife
from ldbench.metrics.feature_set import PAIRS, PARTS, FeatureSet

BLOCK = 2048  # rows of the kernel matrix in memory


class KernelDistance:
    """The unbiased estimate of [1] with the kernel (x'y / D + 1)^3 of [0] over all pairs of images; it may be slightly
    negative.

    [0] and torch-fidelity average it over random subsets of 1000 images, which estimates the same number with a larger
    variance. Labels that were chosen, such as balanced ones, have other pairs of one class than independent labels:
    where both sets have labels, pairs of classes are weighted by the reference's class frequencies in both sets, so
    that two sets of one law have the distance 0 on average, whatever their labels. Where one has none, or too few
    images of a class, all pairs count alike, and the name says `unweighted`. In paired sets an image and its
    reconstruction are not independent and are left out as a pair: equal sets then have distance 0. The interval is by
    a jackknife that leaves out a tenth of the images, for this reference.
    """

    revision: ClassVar[int] = 2
    requires: ClassVar[frozenset[str]] = frozenset({"features"})
    uses: ClassVar[frozenset[str]] = frozenset({"labels"})
    is_distance: ClassVar[bool] = True
    smallest_set: ClassVar[int] = 2  # images of a set
    higher_is_better: ClassVar[bool | None] = False
    suffixes: ClassVar[tuple[str, ...]] = ("", "_unweighted")

    def __call__(self, samples: FeatureSet, reference: FeatureSet, *, paired: bool) -> Estimate:
        """The distance with its interval. Raises ValueError for fewer than two images."""
        x, y = samples.get("features"), reference.get("features")
        if min(len(x), len(y)) < 2:
            raise ValueError(f"A kernel distance needs at least two images in each set, got {len(x)} and {len(y)}.")
        part_x, part_y = samples.get("part"), reference.get("part")
        class_x, class_y = classes_of(samples, reference)
        divided = len(part_x.unique()) == PARTS and len(part_y) >= 2 * PARTS
        subsets = [(), *((part,) for part in range(PARTS)), *PAIRS] if divided else [()]
        keep = torch.ones(PARTS, len(subsets), dtype=torch.float64)  # of parts, by subset
        for column, parts in enumerate(subsets):
            keep[list(parts), column] = 0
        keep_y = keep if paired else torch.ones_like(keep)
        frequency = torch.bincount(class_y).double() / len(class_y)  # (classes,)
        both = matching_rows(samples.get("indices"), reference.get("indices")) if paired else None
        values = (
            mean_kernel(x, x, (class_x, class_x), (part_x, part_x), (keep, keep), frequency, diagonal(len(x)))
            + mean_kernel(y, y, (class_y, class_y), (part_y, part_y), (keep_y, keep_y), frequency, diagonal(len(y)))
            - 2 * mean_kernel(x, y, (class_x, class_y), (part_x, part_y), (keep, keep_y), frequency, both)
        ).tolist()
        replicates = values[1 : 1 + PARTS]
        return jackknife(values[0], replicates, pairs=dict(zip(PAIRS, values[1 + PARTS :], strict=divided)))

    def suffix(self, samples: FeatureSet, reference: FeatureSet) -> str:
        """What its name says of the weights."""
        return self.suffixes[0] if is_weighted(samples, reference) else self.suffixes[1]


def is_weighted(samples: FeatureSet, reference: FeatureSet) -> bool:
    """Whether both sets have labels, and enough images of each class, with two parts left out too."""
    if any(found.labels is None or found.indices is None for found in (samples, reference)):
        return False
    classes = [row_labels(found) for found in (samples, reference)]
    num_classes = int(max(labels.max() for labels in classes)) + 1
    present = [torch.bincount(labels, minlength=num_classes) > 0 for labels in classes]
    return torch.equal(*present) and all(
        (fewest_left(labels, found.get("part"), num_classes)[present[1]] >= 2).all()
        for labels, found in zip(classes, (samples, reference), strict=True)
    )


def fewest_left(
    labels: Tensor,  # (n,)
    part: Tensor,  # (n,)
    num_classes: int,
) -> Tensor:  # (num_classes,)
    """The number of images of each class that remain where two parts of a set are left out, at the least."""
    counts = torch.bincount(labels * PARTS + part, minlength=num_classes * PARTS).view(num_classes, PARTS)
    first, second = torch.tensor(PAIRS).T
    return counts.sum(dim=1) - (counts[:, first] + counts[:, second]).amax(dim=1)


def classes_of(samples: FeatureSet, reference: FeatureSet) -> tuple[Tensor, Tensor]:  # (n,) and (m,)
    """The class of each row of features; one class for all where pairs are not weighted."""
    if is_weighted(samples, reference):
        return row_labels(samples), row_labels(reference)
    x, y = (torch.zeros(len(found.get("features")), dtype=torch.long) for found in (samples, reference))
    return x, y


def row_labels(found: FeatureSet) -> Tensor:  # (m,)
    """The label of each row of features."""
    labels: Tensor = found.get("labels")[found.get("indices")]
    return labels


def mean_kernel(
    x: Tensor,  # (n, D)
    y: Tensor,  # (m, D)
    classes: tuple[Tensor, Tensor],  # (n,) and (m,)
    parts: tuple[Tensor, Tensor],  # (n,) and (m,)
    keep: tuple[Tensor, Tensor],  # (PARTS, S) each, of the parts of each set: 1 kept, 0 left out
    frequency: Tensor,  # (classes,)
    excluded: tuple[Tensor, Tensor] | None,  # (k,) rows of x and of y that are no pair
) -> Tensor:  # (S,)
    """The mean kernel over pairs, weighted by the frequencies of their two classes, for each subset of the parts."""
    x, y, num_classes = x.double(), y.double(), len(frequency)
    counts = [
        torch.bincount(found * PARTS + part, minlength=num_classes * PARTS).view(num_classes, PARTS).double() @ kept
        for found, part, kept in zip(classes, parts, keep, strict=True)
    ]  # (classes, S) each
    weights = [
        (frequency[:, None] / count.clamp(min=1))[found] * kept[part]
        for found, part, kept, count in zip(classes, parts, keep, counts, strict=True)
    ]  # (n, S) and (m, S)
    total = sum(
        (rows * (kernel(x[first : first + BLOCK], y) @ weights[1])).sum(dim=0)
        for first, rows in zip(range(0, len(x), BLOCK), weights[0].split(BLOCK), strict=True)
    )
    if excluded is None:
        return total
    # pairs within a class are averaged over those that count, in place of all
    pairs_x, pairs_y = excluded
    for label in frequency.nonzero()[:, 0].tolist():
        in_x, in_y = (found == label for found in classes)
        chosen = in_x[pairs_x] & in_y[pairs_y]
        own = torch.zeros_like(total)
        for first in range(0, int(in_x.sum()), BLOCK):
            rows = in_x.nonzero()[first : first + BLOCK, 0]
            inner = kernel(x[rows], y[in_y]) @ keep[1][parts[1][in_y]]
            own += (keep[0][parts[0][rows]] * inner).sum(dim=0)
        a, b = x[pairs_x[chosen]], y[pairs_y[chosen]]
        same = ((a * b).sum(dim=1) / x.shape[1] + 1) ** 3
        both = keep[0][parts[0][pairs_x[chosen]]] * keep[1][parts[1][pairs_y[chosen]]]  # (k, S)
        count = counts[0][label] * counts[1][label]
        mean_of_all = own / count.clamp(min=1)
        mean_of_others = (own - same @ both) / (count - both.sum(dim=0)).clamp(min=1)
        total = total + frequency[label] ** 2 * (mean_of_others - mean_of_all)
    return total


def kernel(
    x: Tensor,  # (n, D) float64
    y: Tensor,  # (m, D)
) -> Tensor:  # (n, m)
    """The cubic kernel of each pair of rows."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def diagonal(count: int) -> tuple[Tensor, Tensor]:
    """The pairs of a row with itself."""
    return torch.arange(count), torch.arange(count)


def matching_rows(indices_x: Tensor, indices_y: Tensor) -> tuple[Tensor, Tensor]:
    """The row numbers in each set of the images that are in both."""
    row_of = torch.full((int(max(indices_x.max(), indices_y.max())) + 1,), -1)
    row_of[indices_y] = torch.arange(len(indices_y))
    in_both = row_of[indices_x] >= 0
    return in_both.nonzero()[:, 0], row_of[indices_x][in_both]
