"""Of equal models, one is marked beyond noise of the best in at most 5 % of columns, whatever varies."""

import math
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ldbench.core.estimate import Estimate
from ldbench.metrics.feature_set import Features, SetMetric, gather
from ldbench.metrics.frechet import FrechetDistance
from ldbench.metrics.kernel import KernelDistance
from ldbench.metrics.manifold import Coverage, Density, Precision, Recall
from ldbench.results.per_image import paired_error
from ldbench.results.ranking import rank
from ldbench.results.summaries import Error, Summary, summarize
from tests.simulations.laws import draw, labels_of, set_of
from tests.simulations.rates import lower_limit, report

REPEATS = 10_000
SPREADS = {  # standard deviations over seeds
    "equal": lambda count: np.ones(count),
    "one of ten times": lambda count: np.r_[np.ones(count - 1), 10.0],
    "from one to ten": lambda count: np.logspace(0, 1, count),
}
pytestmark = pytest.mark.slow


def any_beyond(summaries: Sequence[Summary]) -> bool:
    return any(found.within_noise is False for found in rank(summaries, higher_is_better=True))


def check_rate(claim: str, hits: int, repeats: int = REPEATS) -> None:
    report(claim, f"{100 * hits / repeats:.2f} %")
    assert lower_limit(hits, repeats) <= 0.05, f"{claim}: {hits} of {repeats}"


@pytest.mark.parametrize("count", [3, 9, 12])
@pytest.mark.parametrize("freedom", [None, 9])
def test_equal_models_of_one_seed_differ_by_their_images_alone(count: int, freedom: float | None) -> None:
    rng = np.random.default_rng(count)
    hits = 0
    for _ in range(REPEATS):
        errors = np.logspace(-0.5, 0.5, count)
        values = rng.normal(size=count) * errors
        estimated = errors if freedom is None else errors * np.sqrt(rng.chisquare(freedom, count) / freedom)
        hits += any_beyond(
            [
                summarize([[Estimate(value, standard_error=error, freedom=freedom)]])
                for value, error in zip(values.tolist(), estimated.tolist(), strict=True)
            ]
        )
    errors_are = "known errors" if freedom is None else f"errors of {freedom} degrees of freedom"
    check_rate(f"{count} equal models, images only, {errors_are}", hits)


@pytest.mark.parametrize("place", [0.0, 50.0])  # far above their spread, numbers are tested by two pools
@pytest.mark.parametrize("count", [3, 9, 12])
@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("spread", SPREADS)
def test_equal_models_of_several_tokenizer_seeds(count: int, seeds: int, spread: str, place: float) -> None:
    hits = equal_models(count, seeds, spread, place)
    check_rate(f"{count} equal models around {place:g}, {seeds} seeds, spreads {spread}", hits)


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("spread", SPREADS)
def test_many_equal_models_of_several_tokenizer_seeds(seeds: int, spread: str) -> None:
    check_rate(f"21 equal models around 50, {seeds} seeds, spreads {spread}", equal_models(21, seeds, spread, 50.0))


def test_two_seeds_do_not_suffice_for_many_models_of_which_one_varies_more() -> None:
    """The limit of the claim, which the docs state: with two seeds it holds for twelve models."""
    hits = equal_models(21, 2, "one of ten times", 50.0)
    report("21 equal models around 50, 2 seeds, spreads one of ten times", f"{100 * hits / REPEATS:.2f} %")
    assert lower_limit(hits, REPEATS) > 0.05, "the bound holds here too: say so in docs/statistics.md"


def equal_models(count: int, seeds: int, spread: str, place: float) -> int:
    """In how many columns one is marked."""
    rng = np.random.default_rng(10 * count + seeds)
    hits = 0
    for _ in range(REPEATS):
        values = place + rng.normal(size=(count, seeds)) * SPREADS[spread](count)[:, None]
        hits += any_beyond([summarize([[Estimate(value)] for value in row]) for row in values.tolist()])
    return hits


@pytest.mark.parametrize("spread", ["in proportion", "equal", "small of the far ones"])
@pytest.mark.parametrize("count", [9, 21])
def test_equal_models_beside_others_that_are_far_away(count: int, spread: str) -> None:
    """Distances: a third of the models are the best and equal, the others are up to ten times as far away."""
    best = count // 3
    means = np.r_[np.ones(best), np.logspace(0.3, 1, count - best)]
    spreads = {
        "in proportion": 0.05 * means,
        "equal": np.full(count, 0.05),
        "small of the far ones": np.r_[np.full(best, 0.05), np.full(count - best, 0.005)],
    }[spread]
    rng = np.random.default_rng(count)
    hits = 0
    for _ in range(REPEATS):
        values = means[:, None] + rng.normal(size=(count, 3)) * spreads[:, None]
        ranks = rank(
            [summarize([[Estimate(value)] for value in row]) for row in values.tolist()], higher_is_better=False
        )
        hits += any(found.within_noise is False for found in ranks[:best])
    check_rate(f"{best} equal models beside {count - best} far away, 3 seeds, spreads {spread}", hits)


@pytest.mark.parametrize("count", [3, 9, 12])
@pytest.mark.parametrize(("outer", "inner"), [(2, 3), (3, 2), (1, 3)])
def test_equal_models_of_nested_seeds(count: int, outer: int, inner: int) -> None:
    rng = np.random.default_rng(100 * count + 10 * outer + inner)
    hits = 0
    for _ in range(REPEATS):
        tokenizers = rng.normal(size=(count, outer, 1)) * (outer > 1)  # with one, models are equal given it
        values = tokenizers + rng.normal(size=(count, outer, inner))
        hits += any_beyond([summarize([[Estimate(v) for v in seed] for seed in model]) for model in values.tolist()])
    check_rate(f"{count} equal models, {outer} tokenizer seeds with {inner} generator seeds", hits)


@pytest.mark.parametrize("count", [3, 9, 12])
def test_equal_models_on_the_same_images(count: int) -> None:
    rng = np.random.default_rng(count)
    hits, repeats = 0, 2000
    for _ in range(repeats):
        shared, own = rng.normal(size=(1, 200)) * 3, rng.exponential(size=(count, 200)) - 1
        values = shared + own
        errors = values.std(axis=1, ddof=1) / math.sqrt(200)

        def paired(first: int, second: int, values: np.ndarray = values) -> Error | None:
            records = [[[SimpleNamespace(values={"psnr": values[model]})]] for model in (first, second)]
            return paired_error(*records, "psnr", lambda record: record.values)

        summaries = [
            summarize([[Estimate(mean, standard_error=error, freedom=199)]])
            for mean, error in zip(values.mean(axis=1).tolist(), errors.tolist(), strict=True)
        ]
        ranks = rank(summaries, higher_is_better=True, paired=paired)
        hits += any(found.within_noise is False for found in ranks)
    check_rate(f"{count} equal models, compared image by image", hits, repeats)


@pytest.mark.parametrize("labels", ["balanced", "random"])
@pytest.mark.parametrize("metric", [FrechetDistance(), KernelDistance()])
def test_perfect_generators_by_a_distance_and_its_own_errors(metric: SetMetric, labels: str) -> None:
    """At the null, where standard errors are the least certain."""
    rng = torch.Generator().manual_seed(0)
    reference_labels = labels_of("random", 1000, rng)
    reference = set_of(draw(reference_labels, rng), reference_labels, chosen=False)
    found = []
    for _ in range(1200):
        y = labels_of(labels, 300, rng)
        found.append(metric(set_of(draw(y, rng), y, chosen=labels == "balanced"), reference, paired=False))
    check_columns(f"{type(metric).__name__}, {labels} labels", found)


@pytest.mark.parametrize(("width", "count"), [(4, 200), (2, 600)])  # the second: nearly all are hit
@pytest.mark.parametrize("metric", [Precision(k=3), Recall(k=3), Density(k=5), Coverage(k=5)])
def test_equal_generators_by_neighbors_and_their_own_errors(metric: SetMetric, width: int, count: int) -> None:
    rng = torch.Generator().manual_seed(0)
    reference = gather(Features(torch.randn(300, width, generator=rng)), {"features"})
    samples = (gather(Features(torch.randn(count, width, generator=rng)), {"features"}) for _ in range(900))
    found = [metric(one, reference, paired=False) for one in samples]
    check_columns(f"{type(metric).__name__} of {count} samples in {width} dimensions", found)


def check_columns(claim: str, found: Sequence[Estimate]) -> None:
    """Columns of random estimates among those of a simulation."""
    rng = np.random.default_rng(0)
    for count in (3, 9, 12):
        columns = (rng.choice(len(found), count, replace=False).tolist() for _ in range(REPEATS))
        hits = sum(any_beyond([summarize([[found[place]]]) for place in column]) for column in columns)
        check_rate(f"{count} equal generators, {claim}", hits)


@pytest.mark.parametrize("count", [3, 9, 12])
def test_power_for_one_model_that_is_better(count: int) -> None:
    """How often a model that is better by some standard errors of the difference is apart from all others."""
    rng = np.random.default_rng(count)
    for distance in (3, 6, 10):
        for seeds in (1, 2, 3, 5):
            hits, repeats = 0, 2000
            for _ in range(repeats):
                values = rng.normal(size=(count, seeds))
                values[0] += distance * math.sqrt(2 / seeds)
                if seeds == 1:
                    summaries = [summarize([[Estimate(value, standard_error=1.0)]]) for (value,) in values.tolist()]
                else:
                    summaries = [summarize([[Estimate(value)] for value in row]) for row in values.tolist()]
                ranks = rank(summaries, higher_is_better=True)
                hits += ranks[0].position == 1 and all(found.within_noise is False for found in ranks[1:])
            over = "images only" if seeds == 1 else f"{seeds} seeds"
            report(f"power: one of {count} models better by {distance} errors, {over}", f"{100 * hits / repeats:.0f} %")
            if (distance, seeds) in ((6, 1), (10, 5)):
                assert hits > 0.9 * repeats


@pytest.mark.parametrize("count", [9, 21])
def test_power_among_distances_that_vary_in_proportion(count: int) -> None:
    """How often the second of many distances from 1 to 20 is beyond noise of the first, of three seeds each."""
    rng = np.random.default_rng(count)
    for second in (1.2, 1.4, 1.7):
        means = np.r_[1.0, second, np.logspace(0.5, 1.3, count - 2)]
        hits, repeats = 0, 2000
        for _ in range(repeats):
            values = means[:, None] * (1 + 0.05 * rng.normal(size=(count, 3)))
            ranks = rank(
                [summarize([[Estimate(value)] for value in row]) for row in values.tolist()], higher_is_better=False
            )
            hits += ranks[1].within_noise is False
        report(
            f"power: {second} against 1 among {count} distances, spreads 5 %, 3 seeds", f"{100 * hits / repeats:.0f} %"
        )
        if second == 1.7:
            assert hits > 0.9 * repeats
