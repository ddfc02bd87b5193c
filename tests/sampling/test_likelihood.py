"""Likelihood: exact for a Gaussian, in nats and bits, for any probes, and without gradients."""

import math

import pytest
import torch
from tests.examples import checkerboard

from ldbench.core.interpolants import GVP, VP, Linear
from ldbench.sampling.likelihood import Likelihood
from ldbench.sampling.noise import NoiseStream

INTERPOLANTS = {"linear": Linear(), "gvp": GVP(), "vp": VP(beta_min=0.1, beta_max=20.0)}
Y = torch.zeros(4, dtype=torch.long)


def likelihood(**changes) -> Likelihood:
    return Likelihood(**{"rule": "heun", "num_steps": 200, "shift": 1.0, "margin": 1e-3, "dtype": "float64", **changes})


@pytest.mark.parametrize(("name", "kind"), checkerboard(INTERPOLANTS, ("velocity", "noise")))
def test_the_likelihood_of_a_gaussian_is_exact(gaussian, name, kind):
    """Its velocity's Jacobian is diagonal, so that every Rademacher probe gives its exact trace."""
    z = gaussian.mean + gaussian.std * torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(0))
    result = likelihood()(gaussian.field(INTERPOLANTS[name], kind), z, Y, stream=NoiseStream(0, range(4)))
    expected = torch.distributions.Normal(gaussian.mean, gaussian.std).log_prob(z).sum(dim=(1, 2))
    torch.testing.assert_close(
        result.nats, expected, rtol=0, atol=6 * (3e-3 if kind == "noise" or name == "vp" else 1e-3)
    )
    torch.testing.assert_close(gaussian.flow(INTERPOLANTS[name], result.noise), z, rtol=0, atol=0.01)
    assert not result.nats.requires_grad


def test_bits_are_for_each_dimension(gaussian):
    z = torch.full((4, 3, 2), gaussian.mean)
    result = likelihood()(gaussian.field(Linear(), "velocity"), z, Y, stream=NoiseStream(0, range(4)))
    torch.testing.assert_close(
        result.bits_per_dimension, torch.full((4,), math.log2(gaussian.std * math.sqrt(2 * math.pi))), rtol=0, atol=2e-3
    )


def test_it_works_where_gradients_are_off_and_calls_once_a_stage(gaussian):
    field = gaussian.field(Linear(), "velocity")
    with torch.no_grad():
        result = likelihood(rule="euler", num_steps=7)(field, torch.zeros(4, 3, 2), Y, probes=torch.ones(7, 4, 3, 2))
    assert field.calls == 7
    assert torch.isfinite(result.nats).all()


def test_missing_probes_are_refused(gaussian):
    with pytest.raises(ValueError, match="Pass stream"):
        likelihood()(gaussian.field(Linear(), "velocity"), torch.zeros(4, 3, 2), Y)
    with pytest.raises(ValueError, match="Unknown rule"):
        likelihood(rule="leapfrog")
