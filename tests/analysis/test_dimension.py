"""TwoNN: known manifolds have their dimension in any embedding."""

import pytest
import torch

from ldbench.analysis.dimension import two_nn


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def embedded(x: torch.Tensor, width: int) -> torch.Tensor:
    """Points in `width` dimensions, rotated and shifted."""
    basis = torch.linalg.qr(uniform(width, width, seed=7) - 0.5).Q
    return 5 + x @ basis[: x.shape[1]]


@pytest.mark.parametrize("dimension", [1, 2, 4])
def test_a_cube_in_many_dimensions_has_its_own(dimension: int) -> None:
    found = two_nn(embedded(uniform(2500, dimension), 20), kept=0.9)
    assert found.value == pytest.approx(dimension, rel=0.1)
    assert found.low < found.value < found.high
    independent = found.value / 2250**0.5 * 1.96
    assert 1 < (found.high - found.low) / (2 * independent) < 1.5, "ratios of neighbors are not independent"


def test_a_curved_surface_is_a_surface() -> None:
    x = uniform(2500, 3) - 0.5
    sphere = x / x.norm(dim=1, keepdim=True)
    assert two_nn(embedded(sphere, 10), kept=0.9).value == pytest.approx(2, rel=0.1)


def test_scale_does_not_matter_and_outliers_matter_little() -> None:
    x = uniform(1500, 2)
    plain = two_nn(x, kept=0.9).value
    assert two_nn(1e4 * x, kept=0.9).value == pytest.approx(plain, rel=1e-6)
    stray = torch.cat([x, 100 + 1e-3 * uniform(20, 2, seed=1) * torch.tensor([1.0, 0.0], dtype=torch.float64)])
    assert two_nn(stray, kept=0.9).value == pytest.approx(plain, rel=0.1)


def test_equal_points_count_once() -> None:
    x = uniform(300, 2)
    twice = two_nn(torch.cat([x, x]), kept=0.9)
    assert twice == two_nn(x, kept=0.9)
    assert twice.num_points == 300


def test_the_estimate_for_censored_samples_has_no_bias() -> None:
    """On exponential draws, the distribution of log ratios in dimension 3."""
    values = [estimate(uniform(1000, seed=seed).log().neg() / 3) for seed in range(50)]
    assert sum(values) / 50 == pytest.approx(3, rel=0.02)


def estimate(ratios: torch.Tensor) -> float:
    kept = ratios.sort().values[:900]
    return (900 / (kept.sum() + 100 * kept[-1])).item()


def test_too_few_points_and_shares_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="at least ten different points, got 1"):
        two_nn(torch.ones(50, 3), kept=0.9)
    with pytest.raises(ValueError, match=r"at most 1, got 1\.5"):
        two_nn(uniform(50, 2), kept=1.5)
    with pytest.raises(ValueError, match="NaN or infinity"):
        two_nn(torch.full((20, 2), torch.nan), kept=0.9)
