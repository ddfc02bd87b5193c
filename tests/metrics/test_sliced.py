"""Sliced distances: exact transport in one dimension, translations, equal sets, directions, pairs, floors."""

import statistics

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from ldbench.metrics.feature_set import Features, FeatureSet, gather
from ldbench.metrics.sliced import SlicedDistance, two_parts

MIND = SlicedDistance(num_projections=1000, seed=2020)


def normal(count: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def set_of(rows: torch.Tensor, kept: int | None = None) -> FeatureSet:
    return gather(Features(rows), {"features", "labels"}, labels=torch.arange(len(rows)) % 4, kept=kept)


def distance(a: torch.Tensor, b: torch.Tensor, metric: SlicedDistance = MIND, *, paired: bool = False) -> float:
    return metric(set_of(a), set_of(b), paired=paired).value


@pytest.mark.parametrize("count", range(2, 9))
def test_on_a_line_it_is_three_times_the_cheapest_pairing(count: int) -> None:
    a, b = normal(count, 1, seed=count), normal(count, 1, seed=count + 100) * 2
    costs = (a.double() - b.double().T).square()
    rows, columns = linear_sum_assignment(costs.numpy())
    assert distance(a, b) == pytest.approx(3 * costs[rows, columns].mean().item(), rel=1e-6)


def test_equal_sets_in_any_order_have_distance_zero() -> None:
    a = normal(50, 6)
    assert distance(a, a) == 0.0
    assert distance(a, a[torch.randperm(50, generator=torch.Generator().manual_seed(1))]) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("width", [1, 16])
def test_a_translation_by_c_costs_three_times_its_square(width: int) -> None:
    a = normal(30, width)
    shift = torch.zeros(width)
    shift[0] = 2.0
    # of D directions one lies along the shift: the mean square of its projections is 1 / D of it
    tolerance = 1e-5 if width == 1 else 0.15
    assert distance(a, a + shift) == pytest.approx(3 * 4.0, rel=tolerance)


def test_its_spread_over_directions_falls_with_their_number() -> None:
    a, b = normal(40, 8), normal(40, 8, seed=1) * torch.linspace(0.2, 3, 8)
    spread = [
        statistics.stdev(distance(a, b, SlicedDistance(num_projections=number, seed=seed)) for seed in range(40))
        for number in (10, 160)
    ]
    assert spread[0] / spread[1] == pytest.approx(4, rel=0.35)


def test_the_larger_set_is_cut_by_a_random_order_of_the_seed() -> None:
    a, b = normal(60, 3), normal(40, 3, seed=1)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(2020))[:40]
    assert distance(a, b) == pytest.approx(distance(a[order], b), rel=1e-9)
    assert distance(a, b) != distance(a, b, SlicedDistance(num_projections=1000, seed=1))


def test_pairs_are_compared_on_the_images_that_both_sets_have() -> None:
    rows = normal(60, 3)
    found = MIND(set_of(rows), set_of(rows, kept=30), paired=True)
    assert found.value == 0.0
    moved = MIND(set_of(rows + torch.tensor([1.0, 0, 0])), set_of(rows, kept=30), paired=True)
    assert moved.value == pytest.approx(3.0, rel=0.15)
    assert moved.low <= moved.value <= moved.high
    assert moved.high - moved.low < 0.01, "every image moved by the same"


def test_few_images_have_no_interval_and_single_ones_no_distance() -> None:
    assert MIND(set_of(normal(15, 3)), set_of(normal(15, 3, seed=1)), paired=False).low is None
    with pytest.raises(ValueError, match="at least two images in each set, got 1 and 15"):
        distance(normal(1, 3), normal(15, 3))
    with pytest.raises(ValueError, match="num_projections must be at least 1"):
        SlicedDistance(num_projections=0, seed=0)


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("count", [100, 400])
def test_its_floor_is_near_what_samples_of_the_same_law_get(count: int, balanced: bool) -> None:
    metric = SlicedDistance(num_projections=50, seed=0)
    floor = metric.floor(set_of(normal(400, 5)), num_samples=count, balanced=balanced)
    values = [distance(normal(count, 5, seed=seed + 1), normal(400, 5, seed=seed + 50), metric) for seed in range(12)]
    assert floor == pytest.approx(statistics.fmean(values), rel=0.25)


def test_a_reference_that_is_too_small_or_lacks_labels_has_no_floor() -> None:
    assert MIND.floor(set_of(normal(39, 3)), num_samples=10, balanced=False) is None
    unlabeled = gather(Features(normal(80, 3)), {"features"})
    assert MIND.floor(unlabeled, num_samples=10, balanced=True) is None
    assert MIND.floor(unlabeled, num_samples=10, balanced=False) > 0


def test_two_parts_are_disjoint_and_the_first_is_balanced() -> None:
    classes = torch.tensor([0] * 50 + [1] * 25 + [2] * 30)
    first, second = two_parts(classes, 30, torch.Generator().manual_seed(0))
    assert not (first & second).any()
    assert first.sum() == second.sum() == 30
    assert classes[first].bincount().tolist() == [10, 10, 10]
