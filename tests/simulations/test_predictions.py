"""Predictions: with no relation at all, families that resemble each other make no discoveries."""

import numpy as np
import pytest

from ldbench.analysis.prediction import associate
from tests.simulations.rates import lower_limit, report

REPEATS = 10_000
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("correlation", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("sizes", [(3, 3, 3, 3), (5, 3, 3, 1)])
def test_unrelated_measurements_of_families_are_beyond_chance_in_five_percent(
    sizes: tuple[int, ...], correlation: float
) -> None:
    rng = np.random.default_rng(int(100 * correlation) + len(set(sizes)))
    families = [str(family) for family, size in enumerate(sizes) for _ in range(size)]
    place = np.repeat(np.arange(len(sizes)), sizes)
    hits = 0
    for _ in range(REPEATS):
        shared, own = rng.normal(size=(2, len(sizes)))[:, place], rng.normal(size=(2, len(place)))
        x, y = correlation**0.5 * shared + (1 - correlation) ** 0.5 * own
        hits += associate(x.tolist(), y.tolist(), families=families, resamples=1, permutations=1, seed=0).p <= 0.05
    of = ", ".join(map(str, sizes))
    report(f"unrelated measurements of families of {of}, correlation {correlation}", f"{100 * hits / REPEATS:.2f} %")
    assert lower_limit(hits, REPEATS) <= 0.05


def test_power_within_families() -> None:
    rng = np.random.default_rng(0)
    families = [str(family) for family in range(4) for _ in range(3)]
    hits, repeats = 0, 2000
    for _ in range(repeats):
        shared, own = rng.normal(size=4)[np.repeat(np.arange(4), 3)], rng.normal(size=12)
        x, y = shared + own, own + 0.3 * rng.normal(size=12)
        hits += associate(x.tolist(), y.tolist(), families=families, resamples=1, permutations=1, seed=0).p <= 0.05
    report("power: a relation within four families of 3, correlation 0.96", f"{100 * hits / repeats:.0f} %")
    assert hits > 0.8 * repeats
