"""Frechet distances between two sets of images, in float64.

[0] Dowson and Landau, The Frechet Distance between Multivariate Normal Distributions, 1982,
    https://doi.org/10.1016/0047-259X(82)90077-X
[1] Heusel et al., GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium, 2017,
    https://arxiv.org/abs/1706.08500
[2] Nash et al., Generating Images with Sparse Representations, 2021, https://arxiv.org/abs/2103.03841 (sFID)
[3] Chong and Forsyth, Effectively Unbiased FID and Inception Score and where to find them, 2020,
    https://arxiv.org/abs/1911.07023
[4] Yang et al., FD-loss, 2026, https://arxiv.org/abs/2604.28190 (FDr)
"""

from collections.abc import Sequence
from statistics import fmean
from typing import ClassVar

import torch
from torch import Tensor

from ldbench.core.estimate import Estimate
from ldbench.core.intervals import Replicates
from ldbench.metrics.feature_set import PAIRS, FeatureSet
from ldbench.metrics.moments import Gaussian, Moments, SetGaussian

SPLITS = 8  # of the reference, over which a floor is averaged
SMALLEST_FLOOR = 40  # images of a reference: a quarter has a covariance
ROUNDING = 1e-8  # share of the largest eigenvalue below which rounding dominates


class FrechetDistance:
    """The distance between Gaussians fitted to the features of whole images: FID's formula [1].

    The interval is by a jackknife that leaves out a tenth of the images, for this reference. On finite sets every
    Frechet distance is biased upwards, more so with fewer images; the interval is for this number of images, and
    `floor` is what remains for a perfect generator.
    """

    revision: ClassVar[int] = 2
    requires: ClassVar[frozenset[str]] = frozenset({"normal"})
    reference_requires: ClassVar[frozenset[str]] = frozenset({"features", "labels"})
    is_distance: ClassVar[bool] = True
    smallest_set: ClassVar[int] = 2  # images of a set
    higher_is_better: ClassVar[bool | None] = False

    def __call__(self, samples: FeatureSet, reference: FeatureSet, *, paired: bool) -> Estimate:
        """The distance with its interval."""
        return distance_with_interval(samples.get("normal"), reference.get("normal"), paired=paired)

    def replicates(self, samples: FeatureSet, reference: FeatureSet) -> Replicates:
        """The distance of samples, and the same without parts of them.

        Of samples that are paired by index, such as by equal noise, the difference has an interval
        (`tests/simulations/test_guidance_search.py`).
        """
        return distance_replicates(samples.get("normal"), reference.get("normal"), paired=False)

    def floor(self, reference: FeatureSet, *, num_samples: int, balanced: bool) -> float | None:
        """The expected distance of that many samples of the reference's own law, see `frechet_floor`.

        None for a reference without features of single images, and for balanced samples if it has no labels.
        """
        if reference.features is None or reference.indices is None or (balanced and reference.labels is None):
            return None
        return frechet_floor(
            reference.features,
            reference.labels,
            indices=reference.indices,
            num_images=reference.num_images,
            num_samples=num_samples,
            balanced=balanced,
        )


class FrechetRatio:
    """The distance of samples over that of real images that are not in the reference, to the same reference: FDr [4].

    1 is as far from the reference as other real images are. The published figures divide by constants, and so does the
    interval here: it is over samples, for this reference and these real images. Both distances are biased upwards by
    the numbers of images, so that equal numbers of samples and of real images compare best; `floor` is what remains for
    a perfect generator with this number of samples.
    """

    revision: ClassVar[int] = 1
    requires: ClassVar[frozenset[str]] = frozenset({"normal"})
    reference_requires: ClassVar[frozenset[str]] = frozenset({"features", "labels"})
    is_distance: ClassVar[bool] = False
    compares: ClassVar[str] = "heldout"
    smallest_set: ClassVar[int] = 2  # images of a set
    higher_is_better: ClassVar[bool | None] = False

    def __call__(self, samples: FeatureSet, reference: FeatureSet, *, heldout: FeatureSet) -> Estimate:
        """The ratio with its interval; `heldout` are the real images that are not in the reference."""
        return self.replicates(samples, reference, heldout=heldout).estimate()

    def replicates(self, samples: FeatureSet, reference: FeatureSet, *, heldout: FeatureSet) -> Replicates:
        """The ratio, and the same without parts of the samples."""
        distances = FrechetDistance().replicates(samples, reference)
        return distances.divided_by(distance_of_real(heldout, reference))

    def floor(self, reference: FeatureSet, *, heldout: FeatureSet, num_samples: int, balanced: bool) -> float | None:
        """The expected ratio of that many samples of the reference's own law; None as for a distance."""
        floor = FrechetDistance().floor(reference, num_samples=num_samples, balanced=balanced)
        return None if floor is None else floor / distance_of_real(heldout, reference)


class SpatialFrechetDistance:
    """The distance on spatial features, all positions of an image in one vector: sFID's formula [2]."""

    revision: ClassVar[int] = 2
    requires: ClassVar[frozenset[str]] = frozenset({"spatial"})
    is_distance: ClassVar[bool] = True
    smallest_set: ClassVar[int] = 2  # images of a set
    higher_is_better: ClassVar[bool | None] = False

    def __call__(self, samples: FeatureSet, reference: FeatureSet, *, paired: bool) -> Estimate:
        """The distance with its interval."""
        return distance_with_interval(samples.get("spatial"), reference.get("spatial"), paired=paired)


def distance_with_interval(samples: SetGaussian, reference: SetGaussian, *, paired: bool) -> Estimate:
    """The distance, with the jackknife of `distance_replicates`."""
    return distance_replicates(samples, reference, paired=paired).estimate()


def distance_replicates(samples: SetGaussian, reference: SetGaussian, *, paired: bool) -> Replicates:
    """The distance, and the same without parts of the samples, and of paired sets without the same parts of the
    reference.
    """
    divided = len(samples.parts) > 1
    if paired and len(samples.parts) != len(reference.parts):
        raise ValueError(
            f"Paired sets have the same number of parts, got {len(samples.parts)} and {len(reference.parts)}."
        )

    def without(*parts: int) -> float:
        others = reference.without(*parts) if paired else reference.whole
        return frechet_distance(samples.without(*parts), others)

    return Replicates(
        frechet_distance(samples.whole, reference.whole),
        [without(part) for part in range(len(samples.parts))] if divided else [],
        {pair: without(*pair) for pair in PAIRS} if divided else {},
        lower_bound=0.0,
    )


def distance_of_real(heldout: FeatureSet, reference: FeatureSet) -> float:
    """The distance of real images to a reference. Raises ValueError for images that are those of the reference."""
    distance = frechet_distance(heldout.get("normal").whole, reference.get("normal").whole)
    if distance <= 0:
        raise ValueError(
            "The ratio of Frechet distances divides by that of real images which are not in the reference, and these "
            "have the distance 0. Choose another protocol.reference, or leave fdr out of protocol.distribution."
        )
    return distance


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


def frechet_floor(
    features: Tensor,  # (r, D) of the reference or of a random part of it
    labels: Tensor | None,  # (num_images,) of the whole reference
    *,
    indices: Tensor | None = None,  # (r,) of the features in the whole reference; None: all, in order
    num_images: int,  # of the whole reference
    num_samples: int,
    balanced: bool,  # whether samples have balanced labels, else random ones; of no effect without `labels`
) -> float | None:
    """The distance that a perfect generator has on average: samples of the law that the reference was drawn from.

    The distance between two sets of k images of one law is a (2 / k) + b (2 / k)^2 to second order. Both coefficients
    are those of disjoint halves and quarters of the reference, averaged over splits; the floor is a s + b s^2 with
    s = 1 / num_samples + 1 / num_images, an extrapolation in 1 / n as in [3]. Halves and quarters have the same labels,
    since labels are chosen; what differing labels add is the distance of the reference weighted to the samples' class
    frequencies from itself, for random labels averaged over draws of them. Without labels, halves are random. None for
    a reference too small to be quartered.
    """
    if len(features) < SMALLEST_FLOOR:
        return None
    everything = torch.zeros(len(features), dtype=torch.long) if labels is None else labels
    classes = everything if labels is None or indices is None else labels[indices]
    x, rng = features.double(), torch.Generator().manual_seed(0)
    halves, quarters = [], []
    for _ in range(SPLITS):
        a, b, c, d = quarters_of(classes, rng)
        halves.append(distance_of_sets(x, torch.cat([a, b]), torch.cat([c, d])))
        quarters += [distance_of_sets(x, a, b), distance_of_sets(x, c, d)]
    of_halves, of_quarters, size = 1 / len(a), 2 / len(a), 1 / num_samples + 1 / num_images  # each 1 / n + 1 / m
    first = fmean(halves) / of_halves
    curvature = (fmean(quarters) / of_quarters - first) / (of_quarters - of_halves)
    floor = max(0.0, first + curvature * (size - of_halves)) * size
    counts = torch.bincount(everything)
    return floor + of_labels(x, classes, counts, num_samples=num_samples, draws=None if balanced else SPLITS, rng=rng)


def quarters_of(
    classes: Tensor,  # (r,)
    rng: torch.Generator,
) -> Sequence[Tensor]:  # four of (r / 4,)
    """Disjoint random rows, with as many of each class in each quarter; the few that are left over are in none.

    Classes of fewer than four rows are taken together.
    """
    counts = torch.bincount(classes)
    groups = torch.where(counts < 4, len(counts), torch.arange(len(counts)))[classes]
    order = torch.randperm(len(classes), generator=rng)
    rows = [order[groups[order] == group] for group in groups.unique().tolist()]
    dealt = torch.cat([row[: len(row) // 4 * 4] for row in rows])
    return [dealt[first::4] for first in range(4)]


def of_labels(
    x: Tensor,  # (r, D)
    classes: Tensor,  # (r,)
    images: Tensor,  # (classes,) images of each class in the whole reference
    *,
    num_samples: int,
    draws: int | None,  # of random labels; None: balanced ones
    rng: torch.Generator,
) -> float:
    """The distance of a reference weighted to the samples' class frequencies from itself.

    Classes without features are left out.
    """
    counts = torch.bincount(classes, minlength=len(images)).double()
    present = counts > 0
    if present.sum() == 1:
        return 0.0
    even = present.double() / present.sum()
    own = images * present / (images * present).sum()
    whole = weighted_gaussian(x, (own / counts.clamp(min=1))[classes])

    def distance(frequencies: Tensor) -> float:
        return frechet_distance(weighted_gaussian(x, (frequencies / counts.clamp(min=1))[classes]), whole)

    if draws is None:
        return distance(even)
    labels = torch.multinomial(even, draws * num_samples, replacement=True, generator=rng).view(draws, num_samples)
    drawn = [torch.bincount(row, minlength=len(counts)).double() / num_samples for row in labels]
    return fmean(map(distance, drawn))


def distance_of_sets(
    x: Tensor,  # (n, D)
    first: Tensor,  # (a,) rows
    second: Tensor,  # (b,)
) -> float:
    """The distance between two sets of rows."""
    return frechet_distance(Moments.of(x[first]).gaussian(), Moments.of(x[second]).gaussian())


def weighted_gaussian(
    x: Tensor,  # (n, D)
    weights: Tensor,  # (n,), their sum is 1
) -> Gaussian:
    """The Gaussian of weighted rows."""
    mean = weights @ x
    centered = (x - mean) * weights[:, None].sqrt()
    return Gaussian(mean, centered.T @ centered)


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
