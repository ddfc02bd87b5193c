"""Distances between sets of features: closed forms of Gaussians, whatever the rank and the order."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from ldbench.metrics.distribution import frechet_distance


def normal(count: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def shaped(count: int, mean: torch.Tensor, cov: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """A set whose mean and unbiased covariance are exactly these."""
    drawn = normal(count, len(mean), seed)
    centred = drawn - drawn.mean(dim=0)
    white = centred @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(centred.T)).T)
    values, vectors = torch.linalg.eigh(cov)
    return white @ (vectors * values.clamp(min=0).sqrt()).T + mean


def by_definition(a: torch.Tensor, b: torch.Tensor) -> float:
    cov_a, cov_b = torch.cov(a.T).numpy(), torch.cov(b.T).numpy()
    root = sqrtm(cov_a @ cov_b)
    return float((a.mean(0) - b.mean(0)).square().sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * np.trace(root).real)


def test_of_means_it_is_their_squared_distance() -> None:
    a = normal(50, 4)
    assert frechet_distance(a, a + torch.tensor([3.0, 4.0, 0.0, 0.0])) == pytest.approx(25.0, rel=1e-12)


def test_of_axes_it_is_the_squared_difference_of_standard_deviations() -> None:
    first, second = torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([2.0, 2.0, 0.5]).double()
    mean = torch.zeros(3).double()
    a, b = shaped(40, mean, torch.diag(first**2)), shaped(70, mean + 1, torch.diag(second**2), seed=1)
    assert frechet_distance(a, b) == pytest.approx(3 + ((first - second) ** 2).sum().item(), rel=1e-12)


@pytest.mark.parametrize("counts", [(300, 200), (40, 500)])
def test_of_any_two_sets_of_full_rank_it_is_the_definition(counts: tuple[int, int]) -> None:
    mix = normal(8, 8, seed=2)
    a, b = normal(counts[0], 8), normal(counts[1], 8, seed=1) @ mix + 0.5
    assert frechet_distance(a, b) == pytest.approx(by_definition(a, b), rel=1e-9)


def test_of_sets_in_a_plane_it_is_the_distance_within_that_plane() -> None:
    a, b = normal(60, 3), normal(80, 3, seed=1) * 2 + 1
    plane = torch.linalg.qr(normal(64, 3, seed=2)).Q.T  # (3, 64), orthonormal rows
    assert frechet_distance(a @ plane, b @ plane) == pytest.approx(frechet_distance(a, b), rel=1e-12)


def test_of_sets_in_planes_at_right_angles_nothing_is_shared() -> None:
    a, b = normal(60, 3), normal(80, 3, seed=1)
    planes = torch.linalg.qr(normal(64, 6, seed=2)).Q.T
    a, b = a - a.mean(0), b - b.mean(0)
    expected = torch.cov(a.T).trace() + torch.cov(b.T).trace()
    assert frechet_distance(a @ planes[:3], b @ planes[3:]) == pytest.approx(expected.item(), rel=1e-12)


def test_fewer_items_than_features_agree_with_the_definition_where_that_is_right() -> None:
    a, b = normal(10, 24), normal(12, 24, seed=1)
    assert frechet_distance(a, b) == pytest.approx(by_definition(a, b), rel=1e-5)


@pytest.mark.parametrize("count", [5, 64, 1000])
def test_of_a_set_to_itself_it_is_zero_and_never_less(count: int) -> None:
    a = normal(count, 32).relu()  # as features are
    assert 0 <= frechet_distance(a, a) <= 1e-12 * a.square().sum()
    assert 0 <= frechet_distance(a, a.flip(0)) < 1e-10


def test_order_does_not_matter_nor_which_set_is_the_first() -> None:
    a, b = normal(200, 16), normal(90, 16, seed=1) + 1
    value = frechet_distance(a, b)
    shuffled = a[torch.randperm(200, generator=torch.Generator().manual_seed(0))]
    assert frechet_distance(shuffled, b) == pytest.approx(value, rel=1e-12)
    assert frechet_distance(b, a) == pytest.approx(value, rel=1e-12)


def test_float32_features_are_measured_in_float64() -> None:
    a, b = normal(100, 8).float(), normal(100, 8, seed=1).float() + 100
    assert frechet_distance(a, b) == frechet_distance(a.double(), b.double())


@pytest.mark.parametrize("shapes", [((1, 4), (5, 4)), ((5, 4), (5, 3)), ((5,), (5,))])
def test_sets_that_cannot_be_compared_are_refused_with_their_shapes(shapes: tuple) -> None:
    with pytest.raises(ValueError, match=r"compares features \(n, D\) and \(m, D\) of two items or more, got"):
        frechet_distance(torch.zeros(shapes[0]), torch.zeros(shapes[1]))


def test_features_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(torch.full((3, 2), torch.nan), torch.zeros(3, 2))
