"""Uniformity: the three metrics have their known extremes, densities are correct, and clusters are less uniform."""

import math

import pytest
import torch

from ldbench.analysis.uniformity import density, density_statistics, uniformity


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_uniform_densities_have_the_best_values_and_a_single_mass_the_worst() -> None:
    even = density_statistics(torch.full((50,), 0.2, dtype=torch.float64))
    assert (even.cv, even.gini, even.entropy) == pytest.approx((0.0, 0.0, 1.0), abs=1e-12)
    lump = density_statistics(torch.tensor([1.0, *[1e-300] * 49], dtype=torch.float64))
    assert (lump.cv, lump.gini, lump.entropy) == pytest.approx((7.0, 0.98, 0.0), abs=1e-6)


def test_two_levels_have_their_closed_form() -> None:
    found = density_statistics(torch.tensor([1.0, 3.0] * 10, dtype=torch.float64))
    assert found.cv == pytest.approx(0.5)
    assert found.gini == pytest.approx(0.25)
    share = (1 / 40, 3 / 40)
    assert found.entropy == pytest.approx(-10 * sum(p * math.log(p) for p in share) / math.log(20))


def test_the_density_of_a_gaussian_is_that_of_a_wider_gaussian() -> None:
    points = normal(3000, 2) * torch.tensor([1.0, 5.0], dtype=torch.float64)
    variance = torch.tensor([1.0, 25.0], dtype=torch.float64) * (1 + 3000 ** (-1 / 3))
    exact = (-0.5 * (points.square() / variance).sum(dim=1)).exp() / (2 * math.pi * variance.prod().sqrt())
    near = points.abs().le(torch.tensor([1.0, 5.0], dtype=torch.float64)).all(dim=1)
    assert (density(points)[near] / exact[near] - 1).abs().mean() < 0.1


@pytest.mark.slow
def test_clusters_are_less_uniform_than_a_carpet_and_an_embedding_is_reproducible() -> None:
    carpet = torch.rand(120, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lumps = torch.cat([normal(100, 2) * 0.01, 20 + normal(20, 2, seed=1)])
    settings = {"perplexity": 12.0, "seeds": [0, 1]}
    first, second = uniformity(carpet, **settings), uniformity(lumps, **settings)
    assert first.cv < second.cv
    assert first.gini < second.gini
    assert first.entropy > second.entropy
    assert uniformity(carpet, **settings) == first
    assert uniformity(carpet, perplexity=12.0, seeds=[0]) != first


def test_no_seeds_and_too_few_points_are_refused() -> None:
    with pytest.raises(ValueError, match="got 0 and 50"):
        uniformity(normal(50, 2), perplexity=10.0, seeds=[])
    with pytest.raises(ValueError, match="got 1 and 10"):
        uniformity(normal(10, 2), perplexity=10.0, seeds=[0])
