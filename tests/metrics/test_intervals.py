"""Intervals: centred, as wide as Student says, and never beyond what a share can be."""

import math

import pytest
import torch

from ldbench.metrics.intervals import jackknife, of_mean, of_share


def test_the_jackknife_of_a_mean_is_the_interval_of_a_mean() -> None:
    values = torch.randn(10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    without = [(values.sum() - value).item() / 9 for value in values]
    found, expected = jackknife(values.mean().item(), without), of_mean(values)
    assert [found.value, found.low, found.high] == pytest.approx(
        [expected.value, expected.low, expected.high], rel=1e-9
    )


def test_of_ten_numbers_the_interval_is_students() -> None:
    values = torch.arange(10.0, dtype=torch.float64)
    found = of_mean(values)
    assert found.high - found.value == pytest.approx(2.262157 * values.std().item() / math.sqrt(10), rel=1e-6)


def test_it_is_centred_on_what_was_measured_and_not_on_the_replicates() -> None:
    found = jackknife(5.0, [6.0, 7.0, 8.0])  # all replicates are biased upwards
    assert (found.low + found.high) / 2 == pytest.approx(5.0)
    assert jackknife(0.1, [6.0, 7.0, 8.0], least=0.0).low == 0.0


def test_without_parts_there_is_none() -> None:
    assert jackknife(1.0, []).low is None
    assert of_mean(torch.ones(1)).low is None


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"), [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634)]
)
def test_a_share_has_wilsons_interval(hits: int, count: int, low: float, high: float) -> None:
    found = of_share(torch.arange(count) < hits)
    assert [found.value, found.low, found.high] == pytest.approx([hits / count, low, high], abs=1e-4)
