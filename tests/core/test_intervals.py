"""Intervals: centered on the value, of the width of Student's t, and within [0, 1] for proportions."""

import math

import pytest
import torch
from scipy.stats import binomtest, norm, t

from ldbench.core.intervals import debiased_jackknife, jackknife, mean_share, proportion, student_mean, student_quantile


def test_the_jackknife_of_a_mean_is_the_interval_of_a_mean() -> None:
    values = torch.randn(10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    without = [(values.sum() - value).item() / 9 for value in values]
    estimate, expected = jackknife(values.mean().item(), without), student_mean(values)
    assert [estimate.value, estimate.low, estimate.high] == pytest.approx(
        [expected.value, expected.low, expected.high], rel=1e-9
    )


def test_of_ten_numbers_the_interval_is_students() -> None:
    values = torch.arange(10.0, dtype=torch.float64)
    estimate = student_mean(values)
    assert estimate.high - estimate.value == pytest.approx(2.262157 * values.std().item() / math.sqrt(10), rel=1e-6)


def test_it_is_centred_on_what_was_measured_and_not_on_the_replicates() -> None:
    estimate = jackknife(5.0, [6.0, 7.0, 8.0])  # all replicates are biased upwards
    assert (estimate.low + estimate.high) / 2 == pytest.approx(5.0)
    assert jackknife(0.1, [6.0, 7.0, 8.0], lower_bound=0.0).low == 0.0


def test_without_parts_there_is_none() -> None:
    assert jackknife(1.0, []).low is None
    assert student_mean(torch.ones(1)).low is None


def test_the_standard_error_is_kept_beside_a_bounded_interval() -> None:
    estimate = jackknife(0.1, [6.0, 7.0, 8.0], lower_bound=0.0)
    assert estimate.standard_error == pytest.approx(math.sqrt(2 / 3 * 2))
    assert estimate.freedom == 2
    mean = student_mean(torch.arange(10.0, dtype=torch.float64))
    assert (mean.standard_error, mean.freedom) == pytest.approx((math.sqrt(82.5 / 9 / 10), 9))
    assert student_mean(torch.tensor([1.0, math.inf])).standard_error is None
    assert proportion(torch.ones(100, dtype=torch.bool)).standard_error > 0, "all hits have an error too"


def test_what_pairs_of_parts_take_off_takes_degrees_of_freedom_too() -> None:
    """Of a square, which is nearly all pairs at zero."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(10, generator=rng, dtype=torch.float64)
    total = x.sum().item()

    def square(*parts: int) -> float:
        return ((total - sum(x[part].item() for part in parts)) / (10 - len(parts))) ** 2

    replicates = [square(part) for part in range(10)]
    pairs = {(a, b): square(a, b) for a in range(10) for b in range(a)}
    plain, corrected = jackknife(square(), replicates), jackknife(square(), replicates, pairs=pairs)
    assert corrected.standard_error < plain.standard_error
    share = (corrected.standard_error / plain.standard_error) ** 2
    assert (plain.freedom, corrected.freedom) == pytest.approx((9, 9 * share))
    half = student_quantile(9) * corrected.standard_error
    assert corrected.high == pytest.approx(corrected.value + half)


@pytest.mark.parametrize(("hits", "count"), [(8, 10), (0, 10), (10, 10), (360, 360), (50, 100)])
def test_a_proportion_has_wilsons_interval(hits: int, count: int) -> None:
    estimate, expected = proportion(torch.arange(count) < hits), binomtest(hits, count).proportion_ci(method="wilson")
    assert [estimate.value, estimate.low, estimate.high] == pytest.approx([hits / count, *expected], abs=1e-12)


def test_students_quantile_is_scipys_and_goes_over_into_the_normal() -> None:
    assert [student_quantile(freedom) for freedom in (1, 9, 60)] == pytest.approx(t.ppf(0.975, [1, 9, 60]), rel=1e-12)
    assert student_quantile(4.9) == student_quantile(4)  # which is larger
    assert student_quantile(math.inf) == pytest.approx(norm.ppf(0.975), rel=1e-12)
    assert student_quantile(7, 0.001) == pytest.approx(t.ppf(0.9995, 7), rel=1e-9)


def test_the_debiased_jackknife_of_a_population_variance_is_the_sample_variance() -> None:
    values = torch.randn(10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    without = [torch.cat([values[:i], values[i + 1 :]]).var(correction=0).item() for i in range(10)]
    found = debiased_jackknife(values.var(correction=0).item(), without, [1] * 10)
    assert found.value == pytest.approx(values.var().item(), rel=1e-12)
    assert found.low < found.value < found.high
    assert found.freedom == 9


def test_the_debiased_jackknife_of_a_mean_is_the_mean_for_parts_of_any_sizes() -> None:
    values = torch.randn(9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    parts = values.split([2, 3, 4])
    without = [(values.sum() - part.sum()).item() / (9 - len(part)) for part in parts]
    found = debiased_jackknife(values.mean().item(), without, [2, 3, 4])
    assert found.value == pytest.approx(values.mean().item(), rel=1e-12)
    alone = debiased_jackknife(values.mean().item(), [(values.sum() - value).item() / 8 for value in values], [1] * 9)
    expected = student_mean(values)
    assert (alone.low, alone.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    with pytest.raises(ValueError, match="at least two parts, got 1"):
        debiased_jackknife(1.0, [1.0], [3])


def test_shares_of_zero_and_one_have_the_interval_of_a_proportion_and_others_a_narrower_one() -> None:
    hits = torch.arange(40) < 30
    binary, expected = mean_share(hits.double()), proportion(hits)
    assert (binary.value, binary.low, binary.high) == pytest.approx((expected.value, expected.low, expected.high))
    narrower = mean_share(0.75 + 0.5 * (hits.double() - 0.75))
    assert narrower.value == pytest.approx(0.75)
    assert expected.low < narrower.low < narrower.value < narrower.high < expected.high
    all_hits = mean_share(torch.ones(40, dtype=torch.float64))
    assert all_hits == proportion(torch.ones(40, dtype=torch.bool))
    assert all_hits.standard_error > 0
