"""Intervals: centered on the value, of the width of Student's t or the normal, and within [0, 1] for proportions."""

import math

import pytest
import torch
from scipy.stats import binomtest, norm, t

from ldbench.core.intervals import jackknife, normal_mean, proportion, student_mean, student_quantile


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


def test_the_normal_interval_of_a_mean_over_images_has_the_rounded_quantile() -> None:
    values = torch.arange(10.0, dtype=torch.float64)
    estimate = normal_mean(values)
    assert estimate.high - estimate.value == pytest.approx(1.96 * values.std().item() / math.sqrt(10), rel=1e-12)
    assert normal_mean(torch.tensor([1.0, math.inf])).low is None


@pytest.mark.parametrize(("hits", "count"), [(8, 10), (0, 10), (10, 10), (360, 360), (50, 100)])
def test_a_proportion_has_wilsons_interval(hits: int, count: int) -> None:
    estimate, expected = proportion(torch.arange(count) < hits), binomtest(hits, count).proportion_ci(method="wilson")
    assert [estimate.value, estimate.low, estimate.high] == pytest.approx([hits / count, *expected], abs=1e-12)


def test_students_quantile_is_scipys_and_goes_over_into_the_normal() -> None:
    assert [student_quantile(freedom) for freedom in (1, 9, 60)] == pytest.approx(t.ppf(0.975, [1, 9, 60]), rel=1e-12)
    assert student_quantile(4.9) == student_quantile(4)  # which is larger
    assert student_quantile(math.inf) == pytest.approx(norm.ppf(0.975), rel=1e-12)
