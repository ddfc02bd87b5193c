"""Intervals cover what they are for in 90 to 98 %: means, shares, neighborhoods, dimensions, seeds and predictions."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from ldbench.analysis.dimension import two_nn
from ldbench.analysis.prediction import associate
from ldbench.core.estimate import Estimate
from ldbench.core.intervals import mean_share, proportion, student_mean
from ldbench.core.strata import stratified_mean
from ldbench.metrics.feature_set import Features, FeatureSet, SetMetric, gather
from ldbench.metrics.manifold import Coverage, Density, Precision, Recall
from ldbench.metrics.score import InceptionScore
from ldbench.results.summaries import summarize
from tests.simulations.rates import check_coverage

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("what", "count"), [("five repeats", 5), ("360 images of a skewed metric", 360)])
def test_means(what: str, count: int) -> None:
    rng = torch.Generator().manual_seed(count)
    draws: dict[int, Callable[[], Tensor]] = {
        5: lambda: torch.randn(5, generator=rng, dtype=torch.float64) + 1,
        360: lambda: torch.empty(360, dtype=torch.float64).exponential_(generator=rng),
    }
    check_coverage(f"a mean of {what}", [student_mean(draws[count]()) for _ in range(10_000)], 1.0)


@pytest.mark.parametrize("share", [0.5, 0.8, 0.97])
def test_shares(share: float) -> None:
    rng = torch.Generator().manual_seed(0)
    found = [proportion(torch.rand(360, generator=rng) < share) for _ in range(10_000)]
    check_coverage(f"a share of {share} of 360 images", found, share)


@pytest.mark.parametrize(("mean", "count"), [(0.6, 360), (0.97, 360), (0.9, 45)])
def test_means_of_shares(mean: float, count: int) -> None:
    """Of ten neighbors of each image, whose chances differ by images."""
    rng = np.random.default_rng(count)
    chances = rng.beta(2 * mean, 2 * (1 - mean), size=(10_000, count))
    shares = torch.from_numpy(rng.binomial(10, chances) / 10)
    found = [mean_share(row) for row in shares]
    check_coverage(f"a mean of {mean} of {count} shares of ten neighbors", found, mean)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_means_over_seeds(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    found = [summarize([[Estimate(value)] for value in row]) for row in rng.normal(size=(10_000, seeds)).tolist()]
    check_coverage(f"a mean over {seeds} seeds", [Estimate(one.value, one.low, one.high) for one in found], 0.0)


@pytest.mark.parametrize(("labels", "each"), [(10, 36), (50, 2)])
def test_means_within_labels(labels: int, each: int) -> None:
    rng = torch.Generator().manual_seed(labels)
    strata = torch.arange(labels * each) % labels
    levels = torch.randn(labels, generator=rng, dtype=torch.float64)
    found = []
    for _ in range(5000):
        skewed = torch.empty(labels * each, dtype=torch.float64).exponential_(generator=rng)
        found.append(stratified_mean(levels[strata] + skewed, strata))
    check_coverage(f"a mean of {labels * each} samples within {labels} labels", found, levels.mean().item() + 1)


def features(rows: Tensor) -> FeatureSet:
    return gather(Features(rows, logits=rows), {"features", "logits"})


@pytest.mark.parametrize(
    "metric", [Precision(k=3), Recall(k=3), Density(k=5), Coverage(k=5), InceptionScore(splits=10)]
)
def test_over_samples_for_this_reference(metric: SetMetric) -> None:
    rng = torch.Generator().manual_seed(0)
    reference = features(torch.randn(300, 4, generator=rng))

    def draw(count: int) -> FeatureSet:
        return features(0.7 * torch.randn(count, 4, generator=rng) + 0.3)

    found = [metric(draw(300), reference, paired=False) for _ in range(2000)]
    # the score of a split depends on its size: the truth is that of as many samples
    truth = float(np.mean([estimate.value for estimate in found]))
    check_coverage(f"{type(metric).__name__.lower()}, 300 samples", found, truth)


@pytest.mark.parametrize("dimension", [1, 2])
def test_dimensions(dimension: int) -> None:
    rng = torch.Generator().manual_seed(dimension)
    found = [two_nn(torch.rand(400, dimension, generator=rng, dtype=torch.float64), kept=0.9) for _ in range(2000)]
    estimates = [Estimate(one.value, one.low, one.high) for one in found]
    check_coverage(f"an intrinsic dimension of {dimension}, 400 points", estimates, float(dimension))


@pytest.mark.parametrize("num_families", [8, 12])
def test_correlations_over_families(num_families: int) -> None:
    """The truth is the mean over many studies of as many families."""
    rng = np.random.default_rng(num_families)
    families = [str(family) for family in range(num_families) for _ in range(2)]
    found = []
    for seed in range(2000):
        shared, own = rng.normal(size=(2, num_families)), rng.normal(size=(2, 2 * num_families))
        x = np.repeat(shared[0], 2) + 0.5 * own[0]
        y = np.repeat(0.6 * shared[0] + 0.8 * shared[1], 2) + 0.5 * own[1]
        one = associate(x.tolist(), y.tolist(), families=families, resamples=200, permutations=1, seed=seed)
        found.append(one.spearman)
    truth = math.fsum(estimate.value for estimate in found) / len(found)
    check_coverage(f"a rank correlation over {num_families} families of two", found, truth)
