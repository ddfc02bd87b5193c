"""Posterior: its divergence against torch.distributions, its samples against their moments, and points."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from ldbench.core.posterior import Posterior


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def posterior(rng):
    return Posterior(mean=torch.randn(3, 5, 2, generator=rng), logvar=torch.randn(3, 5, 2, generator=rng))


def test_the_divergence_is_that_of_torch_distributions_summed_over_tokens_and_channels(posterior):
    expected = kl_divergence(Normal(posterior.mean, (0.5 * posterior.logvar).exp()), Normal(0.0, 1.0)).sum(dim=(1, 2))
    assert posterior.kl().shape == (3,)
    assert torch.allclose(posterior.kl(), expected, rtol=1e-5)


def test_the_standard_normal_has_no_divergence_from_itself():
    assert torch.equal(Posterior(torch.zeros(2, 4, 3), torch.zeros(2, 4, 3)).kl(), torch.zeros(2))


def test_a_shifted_normal_diverges_by_half_its_squared_mean():
    assert torch.equal(Posterior(torch.full((1, 4, 3), 2.0), torch.zeros(1, 4, 3)).kl(), torch.tensor([0.5 * 4 * 12]))


def test_half_precision_does_not_overflow_the_divergence():
    posterior = Posterior(torch.full((1, 64, 4), 20.0, dtype=torch.float16), torch.zeros(1, 64, 4, dtype=torch.float16))
    assert posterior.kl() == 0.5 * 400 * 256


def test_a_sample_is_mean_plus_deviation_times_the_noise_handed_in(posterior, rng):
    eps = torch.randn(3, 5, 2, generator=rng)
    assert torch.allclose(posterior.sample(eps=eps), posterior.mean + posterior.logvar.exp().sqrt() * eps)
    assert torch.equal(posterior.sample(eps=torch.zeros(1)), posterior.mean)


def test_samples_have_the_mean_and_the_deviation_of_the_gaussian(rng):
    # 100,000 draws with deviation 2
    posterior = Posterior(torch.full((100, 50, 20), 3.0), torch.full((100, 50, 20), 2.0).log() * 2)
    z = posterior.sample(rng)
    assert abs(z.mean() - 3) < 5 * 2 / 100_000**0.5
    assert abs(z.std() - 2) < 5 * 2 / 200_000**0.5


def test_the_generator_decides_the_sample(posterior):
    draws = [posterior.sample(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    state = torch.get_rng_state()
    posterior.sample(torch.Generator().manual_seed(3))
    assert torch.equal(torch.get_rng_state(), state), "the global stream is left alone"


def test_a_point_is_its_own_sample_whatever_the_noise(rng):
    point = Posterior(torch.randn(2, 3, 4, generator=rng))
    assert torch.equal(point.sample(), point.mean)
    assert torch.equal(point.sample(eps=torch.full((2, 3, 4), 9.0)), point.mean)


def test_a_point_has_no_divergence_to_tell():
    with pytest.raises(ValueError, match=r"a point and has no variance.*Drop the KL term"):
        Posterior(torch.zeros(1, 1, 1)).kl()
