"""Moments: the same for any parts in any order; factors of covariances of any rank."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.examples import examples

from ldbench.metrics.moments import Gaussian, Moments, SetGaussian


def features(count: int, width: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) * 3 + 100


@examples(30)
@given(
    cuts=st.lists(st.integers(0, 60), max_size=6),
    order=st.randoms(use_true_random=False),
    offset=st.sampled_from([0.0, 1e4]),
)
def test_parts_merged_in_any_order_are_the_whole(cuts: list[int], order, offset: float) -> None:
    rows = features(60).double() + offset
    ends = [0, *sorted(cuts), 60]
    parts = [Moments.of(rows[a:b]) for a, b in pairwise(ends)]
    order.shuffle(parts)
    merged = Moments.empty(5)
    for part in parts:
        merged = merged.merged(part)
    assert merged.count == 60
    torch.testing.assert_close(merged.mean, rows.mean(dim=0), rtol=1e-12, atol=0)
    torch.testing.assert_close(merged.gaussian().covariance, torch.cov(rows.T), rtol=1e-9, atol=1e-9)


@examples(20)
@given(cuts=st.lists(st.integers(0, 60), max_size=6))
def test_absorbing_batches_and_merging_all_parts_give_the_whole_too(cuts: list[int]) -> None:
    rows, ends = features(60).double() + 1e4, [0, *sorted(cuts), 60]
    absorbed = Moments.empty(5)
    for a, b in pairwise(ends):
        absorbed = absorbed.absorb(rows[a:b])
    for found in (absorbed, Moments.merge_all([Moments.of(rows[a:b]) for a, b in pairwise(ends)])):
        assert found.count == 60
        torch.testing.assert_close(found.mean, rows.mean(dim=0), rtol=1e-12, atol=0)
        torch.testing.assert_close(found.gaussian().covariance, torch.cov(rows.T), rtol=1e-9, atol=1e-9)


def test_merging_leaves_both_as_they_were() -> None:
    a, b = Moments.of(features(10)), Moments.of(features(20, seed=1))
    before = a.scatter.clone(), b.scatter.clone()
    a.merged(b)
    assert torch.equal(a.scatter, before[0])
    assert torch.equal(b.scatter, before[1])


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_a_factor_reproduces_its_covariance_and_has_its_rank(rank: int) -> None:
    factor = torch.randn(rank, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gaussian = Gaussian(torch.zeros(8).double(), factor.T @ factor)
    assert gaussian.root.shape == (rank, 8)
    torch.testing.assert_close(gaussian.root.T @ gaussian.root, gaussian.covariance, rtol=1e-9, atol=1e-9)


def test_without_a_part_it_is_the_gaussian_of_the_others() -> None:
    rows = features(30)
    normal = SetGaussian.of([Moments.of(part) for part in rows.split(10)])
    torch.testing.assert_close(
        normal.without(1).covariance, torch.cov(torch.cat([rows[:10], rows[20:]]).double().T), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("count", [0, 1])
def test_a_covariance_of_fewer_than_two_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"at least two images, got {count}"):
        Moments.of(features(count)).gaussian()
