"""Differences between samples on equal noise, by which settings of guidance are compared: their intervals."""

import statistics

import pytest
import torch

from ldbench.metrics.frechet import FrechetDistance
from tests.simulations.laws import draw, labels_of, set_of
from tests.simulations.rates import lower_limit, report, upper_limit

REPEATS, SAMPLES = 1000, 200
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("labels", ["balanced", "random"])
@pytest.mark.parametrize("scale", [0.9, 0.5])
def test_the_interval_of_a_difference_covers_its_expectation(labels: str, scale: float) -> None:
    rng, metric, found = torch.Generator().manual_seed(0), FrechetDistance(), []
    reference_labels = labels_of("random", 1000, rng)
    reference = set_of(draw(reference_labels, rng), reference_labels, chosen=False)
    for _ in range(REPEATS):
        y = labels_of(labels, SAMPLES, rng)
        x = draw(y, rng, shift=0.3)
        pair = [set_of(features, y, chosen=labels == "balanced") for features in (x, scale * x)]
        first, second = (metric.replicates(samples, reference) for samples in pair)
        found.append(first.minus(second).estimate())
    mean = statistics.fmean(estimate.value for estimate in found)
    hits = sum(estimate.low <= mean <= estimate.high for estimate in found)
    report(
        f"coverage of a difference on equal noise, scale {scale}, {labels} labels", f"{100 * hits / len(found):.1f} %"
    )
    assert upper_limit(hits, len(found)) >= 0.90
    assert lower_limit(hits, len(found)) <= 0.985
