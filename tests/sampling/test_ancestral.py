"""Discrete diffusion samplers: they map noise to a known Gaussian, DDIM is invertible, and Linear is refused."""

import pytest
import torch
from tests.examples import checkerboard

from ldbench.core.interpolants import GVP, VP, Discrete, Linear
from ldbench.sampling.ancestral import DDIM, Ancestral

INTERPOLANTS = {
    "discrete": Discrete(schedule="linear", num_times=1000),
    "cosine": Discrete(schedule="cosine", num_times=1000),
    "gvp": GVP(),
    "vp": VP(beta_min=0.1, beta_max=20.0),
}
FIELDS = checkerboard(INTERPOLANTS, ("noise", "data", "velocity", "angular"))
Y = torch.zeros(8, dtype=torch.long)


def ancestral(**changes) -> Ancestral:
    return Ancestral(**{"respacing": "250", "clip": None, "margin": 1e-3, "dtype": "float64", **changes})


def ddim(**changes) -> DDIM:
    return DDIM(**{"respacing": "100", "eta": 0.0, "clip": None, "margin": 1e-3, "dtype": "float64", **changes})


@pytest.mark.parametrize(("name", "kind"), FIELDS)
def test_ancestral_sampling_carries_noise_to_a_known_gaussian(gaussian, outcome, name, kind):
    mean, deviation = outcome(ancestral(), gaussian.field(INTERPOLANTS[name], kind), 250)
    assert mean == pytest.approx(gaussian.mean, abs=0.02)
    assert deviation == pytest.approx(gaussian.std, abs=0.02)


@pytest.mark.parametrize("eta", [0.0, pytest.param(0.5, marks=pytest.mark.slow), 1.0])
@pytest.mark.parametrize(("name", "kind"), FIELDS)
def test_ddim_carries_noise_to_a_known_gaussian(gaussian, outcome, eta, name, kind):
    mean, deviation = outcome(ddim(eta=eta), gaussian.field(INTERPOLANTS[name], kind), 100)
    assert mean == pytest.approx(gaussian.mean, abs=0.04)
    assert deviation == pytest.approx(gaussian.std, abs=0.04)


def test_ddim_with_all_its_noise_has_the_law_of_ancestral_sampling(gaussian, outcome):
    field = gaussian.field(INTERPOLANTS["discrete"], "noise")
    torch.testing.assert_close(
        outcome(ddim(eta=1.0), field, 100), outcome(ancestral(respacing="100"), field, 100), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("sampler", [ancestral, ddim])
def test_the_law_converges_with_the_first_order(gaussian, outcome, slope, sampler):
    nums_steps, errors = (50, 100, 200), []
    for num_steps in nums_steps:
        _, deviation = outcome(sampler(respacing=str(num_steps)), gaussian.field(GVP(), "velocity"), num_steps)
        errors.append(abs(deviation - gaussian.std))
    assert slope(nums_steps, errors) == pytest.approx(1, abs=0.2)


@pytest.mark.slow
def test_ddim_follows_the_ode_and_finds_the_noise_of_its_samples(gaussian):
    interpolant = INTERPOLANTS["discrete"]
    field = gaussian.field(interpolant, "noise")
    noise = torch.randn(8, 3, 2, generator=torch.Generator().manual_seed(0))
    z = ddim(respacing="1000")(field, noise, Y)
    torch.testing.assert_close(z, gaussian.flow(interpolant, noise), atol=5e-3, rtol=0)
    torch.testing.assert_close(ddim(respacing="1000").invert(field, z, Y), noise, atol=0.05, rtol=0)
    with pytest.raises(ValueError, match="cannot be inverted"):
        ddim(eta=0.5).invert(field, z, Y)


def test_the_variance_that_a_network_tells_is_taken(gaussian, outcome):
    interpolant = INTERPOLANTS["discrete"]
    quiet, loud = (gaussian.field(interpolant, "noise") for _ in range(2))
    predict = loud.predict
    loud.predict = lambda x, t, y: with_beta_variance(predict(x, t, y))
    _, small = outcome(ancestral(respacing="20"), quiet, 20)
    _, large = outcome(ancestral(respacing="20"), loud, 20)
    assert large > small


def with_beta_variance(predicted):
    """A prediction with beta as the variance."""
    return type(predicted)(
        predicted.value, predicted.kind, predicted.x, predicted.t, predicted.interpolant, torch.ones_like(predicted.x)
    )


def test_expected_data_are_clamped_if_clip_is_set(gaussian):
    field = gaussian.field(INTERPOLANTS["discrete"], "noise")
    noise, increments = 9 * torch.ones(8, 3, 2), torch.zeros(250, 8, 3, 2)
    assert float(ancestral(clip=0.5)(field, noise, Y, increments=increments).max()) == pytest.approx(0.5, abs=1e-6)
    assert float(ancestral()(field, noise, Y, increments=increments).max()) > 0.5


def test_each_step_is_one_call(gaussian):
    for sampler, steps in ((ancestral(), 250), (ddim(), 100)):
        field = gaussian.field(INTERPOLANTS["discrete"], "noise")
        sampler(field, torch.randn(8, 3, 2), Y, increments=torch.randn(250, 8, 3, 2))
        assert (field.calls, field.items) == (steps, 8 * steps)


def test_a_respacing_may_be_a_number(gaussian):
    """As `sampler.respacing=50` on a command line is."""
    field = gaussian.field(INTERPOLANTS["discrete"], "noise")
    assert torch.equal(
        ddim(respacing=50)(field, torch.ones(8, 3, 2), Y), ddim(respacing="50")(field, torch.ones(8, 3, 2), Y)
    )


def test_only_noisy_steps_need_noise(gaussian):
    field = gaussian.field(INTERPOLANTS["discrete"], "noise")
    assert (ancestral().stochastic, ddim().stochastic, ddim(eta=0.1).stochastic) == (True, False, True)
    assert torch.isfinite(ddim()(field, torch.randn(8, 3, 2), Y)).all()
    with pytest.raises(ValueError, match="adds noise in its steps"):
        ancestral()(field, torch.randn(8, 3, 2), Y)


def test_what_does_not_go_together_is_refused_with_what_to_change(gaussian):
    message = (
        r"needs a variance-preserving interpolant, but this generator uses Linear\. Choose sampler=heun or sampler"
    )
    with pytest.raises(ValueError, match=message):
        ancestral().check(Linear())
    with pytest.raises(ValueError, match=message):
        ancestral()(gaussian.field(Linear(), "velocity"), torch.randn(8, 3, 2), Y)
    for build, message in (
        (lambda: ddim().check(Linear()), "DDIM needs a variance-preserving interpolant"),
        (lambda: ancestral(respacing="1001").check(GVP()), "Choose 1 to 1000"),
        (lambda: ddim(eta=1.5), "eta of DDIM"),
        (lambda: ancestral(clip=0.0), "clip=null"),
    ):
        with pytest.raises(ValueError, match=message):
            build()
