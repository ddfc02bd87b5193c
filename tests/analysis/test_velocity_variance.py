"""Velocity variance: closed forms of normal latents, known Kronecker covariances, and the flip-flop."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from ldbench.analysis.velocity_variance import (
    choose_structure,
    full_spectrum,
    irreducible_variance,
    kronecker_spectrum,
    smallest_class,
    velocity_variance,
)

N, C = 6, 4


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def decaying(size: int, correlation: float) -> Tensor:
    """A covariance that falls geometrically with the distance."""
    positions = torch.arange(size, dtype=torch.float64)
    return correlation ** (positions[:, None] - positions[None]).abs()


FACTORS = decaying(N, 0.8), decaying(C, 0.4)
EIGENVALUES = torch.outer(*(torch.linalg.eigvalsh(factor) for factor in FACTORS)).flatten()


def kronecker(count: int, seed: int = 0) -> Tensor:
    """Latents whose covariance is the product of the factors."""
    spatial, channel = (torch.linalg.cholesky(factor) for factor in FACTORS)
    return spatial @ normal(count, N, C, seed=seed) @ channel.T


def with_covariance(covariance: Tensor, count: int) -> Tensor:
    """Latents (n, 1, D) with exactly this sample covariance."""
    x = normal(count, len(covariance))
    x = x - x.mean(dim=0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(x.T.cov()), x.T, upper=False)
    return (torch.linalg.cholesky(covariance) @ white).T[:, None]


def test_independent_numbers_of_variance_one_have_half_of_pi() -> None:
    assert irreducible_variance(torch.ones(7, dtype=torch.float64)) == pytest.approx(math.pi / 2, rel=1e-15)
    assert irreducible_variance(full_spectrum(with_covariance(torch.eye(5).double(), 30))) == pytest.approx(math.pi / 2)


def test_the_closed_form_is_the_integral_over_the_times() -> None:
    eigenvalues = torch.tensor([0.0, 0.03, 1.0, 2.5, 40.0], dtype=torch.float64)
    nodes, weights = np.polynomial.legendre.leggauss(400)
    t = torch.from_numpy((nodes + 1) / 2)[:, None]
    at = eigenvalues / ((1 - t) ** 2 + t**2 * eigenvalues)
    integral = (torch.from_numpy(weights / 2)[:, None] * at).sum(dim=0).mean().item()
    assert irreducible_variance(eigenvalues) == pytest.approx(integral, rel=1e-12)


def test_it_is_the_error_of_the_best_prediction_of_the_velocity() -> None:
    """The velocity z - noise given x = t z + (1 - t) noise, for one normal number of variance 4: linear regression."""
    z, noise = 2 * normal(200_000), normal(200_000, seed=1)
    errors = []
    for t in (torch.arange(20) + 0.5) / 20:
        x, velocity = t * z + (1 - t) * noise, z - noise
        errors.append((velocity - (x @ velocity) / (x @ x) * x).square().mean().item())
    assert irreducible_variance(torch.tensor([4.0])) == pytest.approx(sum(errors) / 20, rel=5e-3)


def test_a_known_kronecker_covariance_has_half_of_pi_times_its_mean_root_eigenvalue() -> None:
    latents = with_covariance(torch.kron(*FACTORS), 100)
    expected = math.pi / 2 * EIGENVALUES.sqrt().mean().item()
    assert irreducible_variance(full_spectrum(latents)) == pytest.approx(expected, rel=1e-9)


def test_the_flip_flop_converges_to_a_known_kronecker_covariance() -> None:
    latents = kronecker(3000)
    found = [kronecker_spectrum(latents, iterations=steps, ridge=1e-9) for steps in (5, 1000)]
    assert found[0].change < 1e-6
    assert kronecker_spectrum(latents, iterations=1, ridge=1e-9).change == 1
    torch.testing.assert_close(found[0].eigenvalues, found[1].eigenvalues, rtol=1e-6, atol=0)
    torch.testing.assert_close(found[1].eigenvalues.sort().values, EIGENVALUES.sort().values, rtol=0.08, atol=0)
    assert irreducible_variance(found[1].eigenvalues) == pytest.approx(irreducible_variance(EIGENVALUES), rel=5e-3)


def test_the_flip_flop_is_at_the_largest_likelihood() -> None:
    """Its factors are each the covariance of what the other one whitens; the scale is that of the total variance."""
    latents = kronecker(50) + 3
    found = kronecker_spectrum(latents, iterations=40, ridge=1e-12)
    assert found.eigenvalues.sum().item() == pytest.approx(latents.flatten(1).var(dim=0).sum().item(), rel=1e-9)
    assert found.spatial.mean().item() == pytest.approx(1)
    scaled = kronecker_spectrum(0.5 * latents.mT, iterations=40, ridge=1e-12)
    torch.testing.assert_close(
        scaled.eigenvalues.sort().values, 0.25 * found.eigenvalues.sort().values, rtol=1e-6, atol=0
    )


def test_one_channel_leaves_the_covariance_of_the_tokens() -> None:
    latents = normal(40, 5, 1) @ torch.ones(1, 1, dtype=torch.float64)
    found = kronecker_spectrum(latents, iterations=3, ridge=1e-12)
    torch.testing.assert_close(found.eigenvalues.sort().values, full_spectrum(latents).sort().values, rtol=1e-9, atol=0)


def test_constant_latents_have_none_and_constant_channels_add_none() -> None:
    assert kronecker_spectrum(torch.ones(5, N, C), iterations=2, ridge=1e-6).eigenvalues.sum() == 0
    latents = kronecker(400)
    dead = torch.cat([latents, torch.full((400, N, C), 2.0)], dim=2)
    alive, half = (
        irreducible_variance(kronecker_spectrum(z, iterations=5, ridge=1e-8).eigenvalues) for z in (latents, dead)
    )
    assert half == pytest.approx(alive / 2, rel=1e-3)


@pytest.mark.parametrize("structure", ["full", "kronecker"])
def test_the_interval_contains_the_variance_of_the_law(structure: str) -> None:
    spectrum = (
        full_spectrum if structure == "full" else lambda z: kronecker_spectrum(z, iterations=5, ridge=1e-6).eigenvalues
    )
    found = velocity_variance(kronecker(100), spectrum, rng=torch.Generator().manual_seed(0))
    assert found.low < irreducible_variance(EIGENVALUES) < found.high
    assert found.freedom == 9


def test_the_jackknife_takes_off_most_of_the_bias() -> None:
    """Of as many equal eigenvalues as half the images, whose sample eigenvalues spread most."""
    latents = normal(400, 20, 10)
    assert irreducible_variance(full_spectrum(latents)) == pytest.approx(0.934 * math.pi / 2, rel=3e-3)
    found = velocity_variance(latents, full_spectrum, rng=torch.Generator().manual_seed(0))
    assert found.value == pytest.approx(math.pi / 2, rel=0.012)


def test_kronecker_is_chosen_beyond_half_the_images_and_few_images_are_too_few() -> None:
    assert [choose_structure(100, 5, channels) for channels in (10, 11)] == ["full", "kronecker"]
    for structure, spectrum in {
        "full": full_spectrum,
        "kronecker": partial(kronecker_spectrum, iterations=20, ridge=1e-12),
    }.items():
        fewest = smallest_class(structure, N, C)
        latents = normal(fewest, N, C)[: fewest - math.ceil(fewest / 10)]
        values = spectrum(latents)
        values = values if isinstance(values, Tensor) else values.eigenvalues
        assert values.min() > 1e-9, "the covariance exists without a tenth of the fewest images"
    assert smallest_class("full", N, C) > N * C
    assert smallest_class("kronecker", N, C) < N * C / 2


def test_too_few_images_and_numbers_that_are_not_finite_are_refused() -> None:
    rng = torch.Generator()
    with pytest.raises(ValueError, match="at least three images, got 2"):
        velocity_variance(normal(2, N, C), full_spectrum, rng=rng)
    with pytest.raises(ValueError, match="NaN or infinity"):
        velocity_variance(torch.full((5, N, C), math.nan), full_spectrum, rng=rng)
