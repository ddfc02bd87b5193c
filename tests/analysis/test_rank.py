"""Effective rank: equal directions count one each, unequal ones by their entropy."""

import math

import pytest
import torch

from ldbench.analysis.rank import effective_rank


def with_singular_values(values: list[float], n: int = 40, width: int = 8) -> torch.Tensor:
    """Centered items with these singular values, shifted away from 0."""
    rng = torch.Generator().manual_seed(0)
    left = torch.randn(n, len(values), generator=rng, dtype=torch.float64)
    left = torch.linalg.qr(left - left.mean(dim=0)).Q
    right = torch.linalg.qr(torch.randn(width, len(values), generator=rng, dtype=torch.float64)).Q
    return left @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ right.T + 3


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_equal_directions_count_one_each(rank: int) -> None:
    found = effective_rank(with_singular_values([2.0] * rank))
    assert found.value == pytest.approx(rank, rel=1e-6)
    assert found.largest == 8


def test_unequal_ones_count_by_their_entropy() -> None:
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert effective_rank(with_singular_values([3.0, 1.0])).value == pytest.approx(expected, rel=1e-6)


def test_more_features_than_items_and_another_scale_change_nothing() -> None:
    x = with_singular_values([3.0, 2.0, 1.0], n=10, width=50)
    assert effective_rank(x).value == pytest.approx(
        effective_rank(with_singular_values([3.0, 2.0, 1.0])).value, rel=1e-6
    )
    assert effective_rank(1e-5 * x).value == pytest.approx(effective_rank(x).value, rel=1e-6)
    assert effective_rank(x).largest == 9


def test_items_without_differences_are_refused() -> None:
    with pytest.raises(ValueError, match="Equal items"):
        effective_rank(torch.full((5, 3), 0.3))
    with pytest.raises(ValueError, match="at least two finite items"):
        effective_rank(torch.full((5, 3), torch.inf))
