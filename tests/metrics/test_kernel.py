"""Kernel distance: its definition over pairs, and the pairs that paired sets leave out."""

import pytest
import torch

from ldbench.metrics.feature_set import Features, FeatureSet, gather
from ldbench.metrics.kernel import KernelDistance


def of(features: torch.Tensor, kept: int | None = None) -> FeatureSet:
    return gather(Features(features), {"features"}, kept=kept)


def normal(count: int, seed: int = 0, width: int = 6) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def kernel(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a.double() @ b.double() / len(a) + 1).item() ** 3


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def by_definition(x: torch.Tensor, y: torch.Tensor, paired: bool = False) -> float:
    within = [mean([kernel(a, b) for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j]) for rows in (x, y)]
    return sum(within) - 2 * mean(
        [kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(y) if not paired or i != j]
    )


@pytest.mark.parametrize("paired", [False, True])
def test_it_is_the_mean_over_pairs_of_different_images(paired: bool) -> None:
    x, y = normal(25), normal(25, seed=1) + 0.3
    assert KernelDistance()(of(x), of(y), paired=paired).value == pytest.approx(by_definition(x, y, paired), rel=1e-9)


def test_sets_of_different_sizes_and_a_subset_of_the_reference_are_accepted() -> None:
    x, y = normal(25), normal(12, seed=1) + 0.3
    assert KernelDistance()(of(x), of(y), paired=False).value == pytest.approx(by_definition(x, y), rel=1e-9)
    kept = of(x * 1.2, kept=10)
    both = set(kept.indices.tolist())
    across = mean([kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x * 1.2) if j in both and i != j])
    within = [
        mean([kernel(a, b) for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j])
        for rows in (x, kept.features)
    ]
    assert KernelDistance()(of(x), kept, paired=True).value == pytest.approx(sum(within) - 2 * across, rel=1e-9)


def test_equal_paired_sets_have_the_distance_zero() -> None:
    found = KernelDistance()(of(normal(60)), of(normal(60)), paired=True)
    assert [found.value, found.low, found.high] == pytest.approx([0.0, 0.0, 0.0], abs=1e-9)


def labeled(features: torch.Tensor, labels: torch.Tensor) -> FeatureSet:
    return gather(Features(features), {"features", "labels"}, labels=labels)


def between(x: torch.Tensor, y: torch.Tensor, same: bool, paired: bool = False) -> float:
    """The mean kernel; of one set without the pairs of a row with itself, of paired sets without matching rows."""
    return mean([kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(y) if not (same or paired) or i != j])


@pytest.mark.parametrize("paired", [False, True])
def test_pairs_of_classes_are_weighted_by_the_references_frequencies(paired: bool) -> None:
    labels_x = torch.arange(60) % 3
    labels_y = labels_x if paired else torch.tensor([0] * 30 + [1] * 20 + [2] * 25)
    x, y = normal(60) + labels_x[:, None], normal(len(labels_y), seed=1) + labels_y[:, None]
    frequency = [int((labels_y == label).sum()) / len(labels_y) for label in range(3)]
    expected = 0.0
    for c in range(3):
        for d in range(3):
            a, b = [x[labels_x == label] for label in (c, d)], [y[labels_y == label] for label in (c, d)]
            parts = between(*a, c == d) + between(*b, c == d) - 2 * between(a[0], b[1], False, paired and c == d)
            expected += frequency[c] * frequency[d] * parts
    metric, sets = KernelDistance(), (labeled(x, labels_x), labeled(y, labels_y))
    assert metric.suffix(*sets) == ""
    assert metric(*sets, paired=paired).value == pytest.approx(expected, rel=1e-9)


def test_without_labels_or_with_too_few_of_a_class_all_pairs_count_alike() -> None:
    x, y, metric = normal(40), normal(50, seed=1), KernelDistance()
    plain = metric(of(x), of(y), paired=False)
    for labels_x, labels_y in (
        (torch.zeros(40).long(), None),
        (torch.arange(40) // 39, torch.arange(50) % 2),
        (torch.arange(40) % 3, torch.arange(50) % 2),
    ):
        sets = labeled(x, labels_x), of(y) if labels_y is None else labeled(y, labels_y)
        assert metric.suffix(*sets) == "_unweighted"
        assert metric(*sets, paired=False) == plain
    one_class = labeled(x, torch.zeros(40).long()), labeled(y, torch.zeros(50).long())
    assert metric.suffix(*one_class) == ""
    assert metric(*one_class, paired=False).value == pytest.approx(plain.value, rel=1e-9)


@pytest.mark.slow
def test_of_equal_distributions_it_is_zero_on_average_and_its_interval_covers_zero() -> None:
    reference = of(normal(2000))
    found = [KernelDistance()(of(normal(100, seed=seed)), reference, paired=False) for seed in range(1, 61)]
    assert abs(mean([estimate.value for estimate in found])) < 0.01
    assert mean([estimate.low <= 0 <= estimate.high for estimate in found]) > 0.85


def test_a_set_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two images in each set, got 1 and 5"):
        KernelDistance()(of(normal(1)), of(normal(5)), paired=False)
