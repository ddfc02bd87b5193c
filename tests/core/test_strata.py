"""Means over strata: differences between strata do not count, and one stratum is no stratum."""

import math

import pytest
import torch

from ldbench.core.estimate import Estimate
from ldbench.core.intervals import student_mean
from ldbench.core.strata import combine_strata, stratified_mean


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_one_stratum_has_the_interval_of_a_mean() -> None:
    values = normal(12)
    found, expected = stratified_mean(values, torch.zeros(12)), student_mean(values)
    assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))
    assert found.freedom == pytest.approx(11)


def test_differences_between_strata_do_not_widen_it() -> None:
    strata = torch.arange(40) % 4
    values = normal(40)
    shifted = values + 100 * strata
    one, other = stratified_mean(values, strata), stratified_mean(shifted, strata)
    assert other.standard_error == pytest.approx(one.standard_error)
    assert other.value == pytest.approx(shifted.mean().item())
    assert student_mean(shifted).standard_error > 10 * other.standard_error


def test_equal_strata_have_the_pooled_variance_and_the_sum_of_their_freedoms() -> None:
    halves = torch.cat([normal(6), normal(6).flip(0)])
    found = stratified_mean(halves, torch.arange(12) // 6)
    assert found.standard_error == pytest.approx((normal(6).var().item() / 12) ** 0.5)
    assert found.freedom == pytest.approx(10)


def test_a_stratum_of_one_leaves_the_interval_of_independent_numbers() -> None:
    values = normal(5)
    assert stratified_mean(values, torch.tensor([0, 0, 1, 1, 2])) == student_mean(values)


def test_weights_are_applied_and_missing_errors_leave_no_interval() -> None:
    known = Estimate(2.0, 1.0, 3.0, 0.5, 4)
    found = combine_strata([known, Estimate(4.0, 3.0, 5.0, 0.0, 9)], [0.25, 0.75])
    assert (found.value, found.standard_error, found.freedom) == pytest.approx((3.5, 0.125, 4))
    many = combine_strata([Estimate(2.0, 1.0, 3.0, 0.5)], [1.0])
    assert (many.high - many.value, many.freedom) == (pytest.approx(1.96 * 0.5, rel=1e-3), None)
    assert combine_strata([known, Estimate(4.0)], [0.5, 0.5]) == Estimate(3.0)
    assert combine_strata([Estimate(1.0, 1.0, 1.0, 0.0, 3)], [1.0]).high == 1.0
    with pytest.raises(ValueError, match="at least one stratum"):
        combine_strata([], [])
    assert math.isfinite(found.low)
