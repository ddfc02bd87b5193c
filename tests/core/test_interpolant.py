"""Interpolants: their end points, derivatives, and conversions between predictions."""

import pytest
import torch

from ldbench.core.interpolant import KINDS, convert
from ldbench.core.interpolants import GVP, VP, Discrete, Linear

CONTINUOUS = {"linear": Linear(), "gvp": GVP(), "vp": VP(beta_min=0.1, beta_max=20.0)}
ALL = {
    **CONTINUOUS,
    "discrete": Discrete(schedule="linear", num_times=1000),
    "cosine": Discrete(schedule="cosine", num_times=1000),
}
T = torch.tensor([0.05, 0.3, 0.6, 0.95], dtype=torch.float64)


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return tuple(torch.randn(4, 5, 3, generator=rng, dtype=torch.float64) for _ in range(2))


@pytest.mark.parametrize("name", ALL)
def test_it_goes_from_noise_to_data(name):
    c = ALL[name].at(torch.tensor([0.0, 1.0]))
    assert c.alpha[0] < 0.01
    assert c.sigma[0] > 0.99
    assert (float(c.alpha[1]), float(c.sigma[1])) == (1.0, 0.0)


@pytest.mark.parametrize("name", ALL)
def test_its_derivatives_are_those_of_its_shares(name):
    t = (T + 0.0003).requires_grad_()  # off the counted times, where the slope jumps
    c = ALL[name].coefficients(t)
    for share, derivative in ((c.alpha, c.alpha_dot), (c.sigma, c.sigma_dot)):
        (slope,) = torch.autograd.grad(share.sum(), t, retain_graph=True)
        torch.testing.assert_close(derivative, slope, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_variance_is_preserved_where_it_is_said(name):
    c = ALL[name].at(torch.linspace(0, 1, 33))
    preserved = torch.allclose(c.alpha.square() + c.sigma.square(), torch.ones(33, dtype=torch.float64), rtol=1e-12)
    assert preserved == ALL[name].variance_preserving


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("target", KINDS)
def test_each_prediction_tells_the_others(name, source, target):
    interpolant, (noise, data) = ALL[name], pair()
    x = interpolant.mix(noise, data, T)
    converted = convert(
        interpolant.perfect_prediction(source, noise, data, T), x, interpolant.at(T), source=source, target=target
    )
    torch.testing.assert_close(converted, interpolant.perfect_prediction(target, noise, data, T), rtol=1e-7, atol=1e-7)


def test_the_words_are_what_they_say():
    noise, data = pair()
    gvp = GVP()
    x, velocity = gvp.between(noise, data, T)
    assert torch.equal(x, gvp.mix(noise, data, T))
    assert torch.equal(gvp.perfect_prediction("velocity", noise, data, T), velocity)
    torch.testing.assert_close(Linear().between(noise, data, T)[1], data - noise)
    torch.testing.assert_close(gvp.perfect_prediction("score", noise, data, T), -noise / gvp.at(T).sigma[:, None, None])
    # its angle falls by pi / 2 in all
    torch.testing.assert_close(velocity, -torch.pi / 2 * gvp.perfect_prediction("angular", noise, data, T))


@pytest.mark.parametrize("name", CONTINUOUS)
def test_the_diffusion_is_that_of_the_forward_process(name):
    """Its variance dynamics: d sigma^2 / dt = 2 alpha' / alpha sigma^2 - 2 diffusion, towards the data."""
    c = CONTINUOUS[name].at(T)
    torch.testing.assert_close(
        2 * c.sigma * c.sigma_dot, 2 * c.alpha_dot / c.alpha * c.sigma.square() - 2 * c.diffusion
    )


@pytest.mark.parametrize("name", ALL)
def test_a_time_is_found_by_its_signal_to_noise_ratio(name):
    torch.testing.assert_close(ALL[name].time_at(ALL[name].at(T).log_snr), T, rtol=1e-9, atol=1e-9)


def test_coefficients_are_exact_whatever_the_precision_and_spread_over_what_an_image_holds():
    noise, data = (z.float() for z in pair())
    mixed = Linear().mix(noise, data, torch.tensor([0.0, 0.25, 0.5, 1.0]))
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed[0], noise[0])
    assert torch.equal(mixed[3], data[3])
    assert Linear().at(torch.tensor([0.5], dtype=torch.bfloat16)).alpha.dtype == torch.float64
