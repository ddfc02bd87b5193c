"""Summaries: means over nested seeds, and the errors within each scope."""

import math
import statistics

import pytest

from ldbench.core.estimate import Estimate
from ldbench.results.summaries import pooled, summarize


def test_the_mean_over_seeds_has_the_interval_of_students_t():
    found = summarize([[Estimate(value)] for value in (1.0, 2.0, 4.0)])
    assert found.value == pytest.approx(7 / 3)
    assert found.spread == pytest.approx(statistics.stdev((1, 2, 4)))
    half = 4.302653 * found.spread / math.sqrt(3)
    assert (found.low, found.high) == pytest.approx((7 / 3 - half, 7 / 3 + half))
    assert found.scope == "seeds"


def test_one_number_has_the_interval_and_the_error_that_it_came_with():
    found = summarize([[Estimate(1.0, 0.9, 1.2, 0.05, 9)]])
    assert (found.low, found.high, found.spread, found.scope) == (0.9, 1.2, None, "weights")
    assert (found.errors["weights"].squared, found.errors["weights"].freedom) == pytest.approx((0.05**2, 9))
    assert summarize([[Estimate(1.0, 0.9, 1.1)]]).errors == {}, "an interval may be cut: its width is no error"


def test_tokenizer_seeds_stand_above_generator_seeds():
    found = summarize([[Estimate(1.0), Estimate(3.0), Estimate(8.0)], [Estimate(10.0), Estimate(12.0)]])
    assert found.value == pytest.approx((4 + 11) / 2), "each tokenizer counts once"
    over_all, over_generators = found.errors["seeds"], found.errors["generator seeds"]
    assert (over_all.squared, over_all.freedom) == pytest.approx((24.5 / 2, 1))
    assert over_generators.freedom == 3
    assert over_generators.variance == pytest.approx((9 + 1 + 16 + 1 + 1) / 3)
    assert over_generators.share == pytest.approx((1 / 3 + 1 / 2) / 4)
    assert "generator seeds" not in summarize([[Estimate(1.0), Estimate(3.0)], [Estimate(2.0)]]).errors


def test_the_error_of_a_mean_of_independent_numbers():
    found = summarize([[Estimate(1.0, standard_error=0.3)], [Estimate(2.0, standard_error=0.4)]])
    assert found.errors["weights"].squared == pytest.approx(0.25**2)
    partly = summarize([[Estimate(1.0, standard_error=0.3)], [Estimate(2.0)]])
    assert list(partly.errors) == ["seeds"]


def test_infinite_numbers_have_no_error():
    assert summarize([[Estimate(math.inf)], [Estimate(1.0)]]).errors == {}
    assert summarize([[Estimate(1.0, -math.inf, math.inf, math.inf)]]).errors == {}


def test_samplings_of_the_same_weights_are_one_number_whose_interval_is_cut_as_theirs() -> None:
    shares = [Estimate(value, 0.99, 1.0, 0.004, 9) for value in (0.998, 1.0)]
    found = pooled(shares)
    assert (found.value, found.high) == (pytest.approx(0.999), 1.0)
    assert found.standard_error == pytest.approx(0.004 / math.sqrt(2))
    assert found.freedom == pytest.approx(18)
    distances = [Estimate(0.01, 0.0, 0.05, 0.02, 4), Estimate(0.02, 0.0, 0.06, 0.02, 4)]
    assert pooled(distances).low == 0.0
    differences = [Estimate(0.01, -0.03, 0.05, 0.02), Estimate(0.02, -0.02, 0.06, 0.02)]
    assert pooled(differences).low < 0
    assert pooled([Estimate(1.0), Estimate(math.inf)]) == Estimate(math.inf)
    assert pooled(shares[:1]) is shares[0]
