"""Distances between sets: their intervals, their floor and their zero, for chosen and for random labels."""

import statistics

import pytest
import torch

from ldbench.core.estimate import Estimate
from ldbench.core.intervals import Replicates
from ldbench.metrics.feature_set import FeatureSet
from ldbench.metrics.frechet import FrechetDistance, FrechetRatio
from ldbench.metrics.kernel import KernelDistance
from ldbench.metrics.memorization import Memorization
from ldbench.metrics.sliced import SlicedDistance
from tests.simulations.laws import draw, labels_of, set_of
from tests.simulations.rates import lower_limit, report, upper_limit

REPEATS = 2000
METRICS = {
    "fd": FrechetDistance(),
    "kid": KernelDistance(),
    "fdr": FrechetRatio(),
    "mind": SlicedDistance(num_projections=20, seed=0),
}
pytestmark = pytest.mark.slow


def measure(name: str, samples: FeatureSet, reference: FeatureSet, heldout: FeatureSet) -> Estimate:
    """The estimate of a metric, beside real images where it needs them."""
    metric = METRICS[name]
    return metric(samples, reference, heldout=heldout) if name == "fdr" else metric(samples, reference, paired=False)


def estimates_of(name: str, labels: str, *, shift: float, count: int = 500) -> list[Estimate]:
    """Of many sets of samples against one reference."""
    rng = torch.Generator().manual_seed(0)
    reference_labels = labels_of("random", 1000, rng)
    reference = set_of(draw(reference_labels, rng), reference_labels, chosen=False)
    heldout = set_of(draw(reference_labels, torch.Generator().manual_seed(1)), reference_labels, chosen=False)
    found = []
    for _ in range(REPEATS if name != "mind" else 600):  # sorting takes longest
        y = labels_of(labels, count, rng)
        samples = set_of(draw(y, rng, shift=shift), y, chosen=labels == "balanced")
        found.append(measure(name, samples, reference, heldout))
    return found


@pytest.mark.parametrize("labels", ["balanced", "random"])
@pytest.mark.parametrize("name", METRICS)
def test_intervals_away_from_the_null_cover_the_mean(name: str, labels: str) -> None:
    found = estimates_of(name, labels, shift=0.5)
    mean = statistics.fmean(estimate.value for estimate in found)
    hits = sum(estimate.low <= mean <= estimate.high for estimate in found)
    report(f"coverage of {name}'s interval, {labels} labels", f"{100 * hits / len(found):.1f} %")
    assert upper_limit(hits, len(found)) >= 0.90
    assert lower_limit(hits, len(found)) <= 0.98


def test_the_interval_of_a_mean_of_ratios_covers_the_mean() -> None:
    rng = torch.Generator().manual_seed(0)

    def seen(features: torch.Tensor, y: torch.Tensor) -> list[FeatureSet]:
        """By two extractors, which see the same in other units."""
        return [set_of(rows, y, chosen=False) for rows in (features, features.exp().clamp(max=50) / 5)]

    reference, heldout, found = ([], [], [])
    for sets, count in ((reference, 1000), (heldout, 500)):
        y = labels_of("random", count, rng)
        sets += seen(draw(y, rng), y)
    for _ in range(600):
        y = labels_of("random", 500, rng)
        samples = seen(draw(y, rng, shift=0.5), y)
        ratios = [
            METRICS["fdr"].replicates(x, r, heldout=h) for x, r, h in zip(samples, reference, heldout, strict=True)
        ]
        found.append(Replicates.mean_of(ratios).estimate())
    mean = statistics.fmean(estimate.value for estimate in found)
    hits = sum(estimate.low <= mean <= estimate.high for estimate in found)
    report("coverage of the interval of a mean of ratios on two extractors", f"{100 * hits / len(found):.1f} %")
    assert upper_limit(hits, len(found)) >= 0.90
    assert lower_limit(hits, len(found)) <= 0.98


@pytest.mark.parametrize("labels", ["balanced", "random"])
@pytest.mark.parametrize("name", METRICS)
def test_at_the_null_intervals_are_as_wide_as_the_values_spread(name: str, labels: str) -> None:
    found = estimates_of(name, labels, shift=0.0)
    quantiles = torch.quantile(torch.tensor([e.value for e in found]), torch.tensor([0.025, 0.975])).tolist()
    width = statistics.fmean(2 * (estimate.high - estimate.value) for estimate in found)
    ratio = width / (quantiles[1] - quantiles[0])
    report(f"width of {name}'s interval at the null over the values' spread, {labels} labels", f"{ratio:.2f}")
    assert 1 / 1.3 <= ratio <= 1.3


@pytest.mark.parametrize("labels", ["balanced", "random"])
@pytest.mark.parametrize("count", [360, 1000, 5000])
def test_a_perfect_generator_gets_its_floor(count: int, labels: str) -> None:
    rng = torch.Generator().manual_seed(count)
    metric, values, floors = METRICS["fd"], [], []
    for _ in range(200):
        reference_labels = labels_of("random", 1437, rng)
        reference = set_of(draw(reference_labels, rng), reference_labels, chosen=False)
        floors.append(metric.floor(reference, num_samples=count, balanced=labels == "balanced"))
        for _ in range(10):
            y = labels_of(labels, count, rng)
            values.append(metric(set_of(draw(y, rng), y, chosen=labels == "balanced"), reference, paired=False).value)
    ratio = statistics.fmean(floors) / statistics.fmean(values)
    report(f"floor over the mean of a perfect generator, {count} samples, {labels} labels", f"{ratio:.3f}")
    assert abs(ratio - 1) < 0.1


@pytest.mark.parametrize("labels", ["balanced", "random"])
@pytest.mark.parametrize("count", [360, 1000])
def test_a_perfect_generator_gets_the_floor_of_the_sliced_distance(count: int, labels: str) -> None:
    rng = torch.Generator().manual_seed(count)
    metric, values, floors = METRICS["mind"], [], []
    for _ in range(200):
        reference_labels = labels_of("random", 1437, rng)
        reference = set_of(draw(reference_labels, rng), reference_labels, chosen=False)
        floors.append(metric.floor(reference, num_samples=count, balanced=labels == "balanced"))
        y = labels_of(labels, count, rng)
        values.append(metric(set_of(draw(y, rng), y, chosen=labels == "balanced"), reference, paired=False).value)
    ratio = statistics.fmean(floors) / statistics.fmean(values)
    report(f"floor of mind over the mean of a perfect generator, {count} samples, {labels} labels", f"{ratio:.3f}")
    assert abs(ratio - 1) < 0.1


@pytest.mark.parametrize("reference_labels", ["balanced", "random"])
@pytest.mark.parametrize("labels", ["balanced", "random"])
def test_the_kernel_distance_of_one_law_is_zero_on_average(labels: str, reference_labels: str) -> None:
    rng = torch.Generator().manual_seed(1)
    values = []
    for _ in range(REPEATS):
        kinds = [labels_of(kind, 200, rng) for kind in (labels, reference_labels)]
        sets = [set_of(draw(y, rng), y, chosen=False) for y in kinds]
        values.append(METRICS["kid"](*sets, paired=False).value)
    mean, error = statistics.fmean(values), statistics.stdev(values) / REPEATS**0.5
    report(f"mean of kid of one law in its errors, {labels} against {reference_labels} labels", f"{mean / error:.2f}")
    assert abs(mean) < 3.3 * error


def test_memorization_of_a_perfect_generator_covers_zero() -> None:
    rng = torch.Generator().manual_seed(2)
    hits, repeats = 0, REPEATS
    for _ in range(repeats):
        kinds = [labels_of("random", count, rng) for count in (300, 600, 200)]
        samples, train, heldout = (
            set_of(draw(y, rng, shift=0.3 * (i == 2)), y, chosen=False) for i, y in enumerate(kinds)
        )
        found = Memorization()(samples, train, heldout=heldout)
        hits += found.low <= 0 <= found.high
    report("coverage of memorization's interval of a perfect generator", f"{100 * hits / repeats:.1f} %")
    assert upper_limit(hits, repeats) >= 0.90
    assert lower_limit(hits, repeats) <= 0.98
