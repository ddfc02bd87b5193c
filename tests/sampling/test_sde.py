"""Reverse SDEs: every diffusion maps noise to a known Gaussian, finite, with the rule's order, one call per drift."""

import math

import pytest
import torch
from tests.examples import checkerboard

from ldbench.core.interpolants import GVP, VP, Linear
from ldbench.sampling.noise import NoiseStream
from ldbench.sampling.ode import FixedGrid
from ldbench.sampling.sde import DIFFUSION_OVER_SIGMA, ReverseSDE

INTERPOLANTS = {"linear": Linear(), "gvp": GVP(), "vp": VP(beta_min=0.1, beta_max=20.0)}
FIELDS = [(name, kind) for name in INTERPOLANTS for kind in ("velocity", "score", "noise", "data")]
LAST_STEPS = {"mean": 0.04, "euler": 0.04, "tweedie": 0.04, "none": 0.0}


def sde(**changes) -> ReverseSDE:
    names = {"rule": "euler_maruyama", "diffusion": "sigma", "last_step": "mean", "dtype": "float64"}
    numbers = {"num_steps": 250, "norm": 1.0, "last_step_size": 0.04, "shift": 1.0, "margin": 1e-3}
    return ReverseSDE(**{**names, **numbers, **changes})


@pytest.mark.parametrize("diffusion", DIFFUSION_OVER_SIGMA)
@pytest.mark.parametrize(("rule", "name"), checkerboard(("euler_maruyama", "heun"), INTERPOLANTS))
def test_every_diffusion_carries_noise_to_a_known_gaussian(gaussian, outcome, some, diffusion, rule, name):
    for kind in some(("velocity", "noise"), 2, list(DIFFUSION_OVER_SIGMA).index(diffusion)):
        sampler = sde(diffusion=diffusion, rule=rule, num_steps=100, last_step="euler", last_step_size=0.01)
        mean, deviation = outcome(sampler, gaussian.field(INTERPOLANTS[name], kind), 100)
        assert mean == pytest.approx(gaussian.mean, abs=0.03)
        assert deviation == pytest.approx(gaussian.std, abs=0.03)


@pytest.mark.parametrize("last_step", LAST_STEPS)
@pytest.mark.parametrize("name", INTERPOLANTS)
def test_every_last_step_ends_at_the_data(gaussian, outcome, some, last_step, name):
    for kind in some(("velocity", "score", "noise", "data"), 2, list(LAST_STEPS).index(last_step)):
        sampler = sde(last_step=last_step, last_step_size=LAST_STEPS[last_step], num_steps=100)
        mean, deviation = outcome(sampler, gaussian.field(INTERPOLANTS[name], kind), 100)
        assert mean == pytest.approx(gaussian.mean, abs=0.03), kind
        assert deviation == pytest.approx(gaussian.std, abs=0.03), kind


@pytest.mark.parametrize("diffusion", DIFFUSION_OVER_SIGMA)
@pytest.mark.parametrize("rule", ["euler_maruyama", "heun"])
@pytest.mark.parametrize("last_step", LAST_STEPS)
def test_nothing_is_ever_infinite_even_in_few_steps_of_single_precision(gaussian, some, diffusion, rule, last_step):
    sampler = sde(
        diffusion=diffusion,
        rule=rule,
        num_steps=3,
        last_step=last_step,
        last_step_size=LAST_STEPS[last_step],
        dtype="float32",
    )
    for name, kind in some(FIELDS, 3, list(DIFFUSION_OVER_SIGMA).index(diffusion)):
        stream = NoiseStream(0, range(4))
        samples = sampler(
            gaussian.field(INTERPOLANTS[name], kind), stream.normal(0, (4, 3, 2)), torch.zeros(4), stream=stream
        )
        assert torch.isfinite(samples).all()


@pytest.mark.parametrize(("rule", "order_of_mean"), [("euler_maruyama", 1), ("heun", 2)])
def test_the_law_of_the_outcome_converges_with_the_order_of_the_rule(gaussian, outcome, slope, rule, order_of_mean):
    """The mean depends only on the drift. The deviation is of first order in both: w is taken at a step's start."""
    nums_steps, means, deviations = (50, 100, 200), [], []
    for num_steps in nums_steps:
        sampler = sde(rule=rule, num_steps=num_steps, diffusion="decreasing", last_step="tweedie", last_step_size=1e-3)
        mean, deviation = outcome(sampler, gaussian.field(GVP(), "velocity"), num_steps)
        means.append(abs(mean - gaussian.mean))
        deviations.append(abs(deviation - gaussian.std))
    assert slope(nums_steps, means) == pytest.approx(order_of_mean, abs=0.15)
    assert slope(nums_steps, deviations) == pytest.approx(1, abs=0.15)


def test_without_diffusion_it_is_the_ode(gaussian):
    field = gaussian.field(Linear(), "velocity")
    stream = NoiseStream(0, range(4))
    noise, y = stream.normal(0, (4, 3, 2)), torch.zeros(4)
    noisy = sde(norm=0.0, num_steps=24, last_step="euler")(field, noise, y, stream=stream)
    plain = FixedGrid(rule="euler", num_steps=25, shift=1.0, margin=1e-3, last_step="none", dtype="float64")(
        field, noise, y
    )
    torch.testing.assert_close(noisy, plain)


def test_maetoks_diffusion_is_the_linear_one():
    """MAETok's drift is v - w / 2 * score with w = 2 t and t = 1 as noise: the coefficient here is 1 - t."""
    c = GVP().at(torch.tensor([0.3]))
    assert float(
        DIFFUSION_OVER_SIGMA["maetok"](c, torch.tensor([0.3], dtype=torch.float64), 1.0) * c.sigma
    ) == pytest.approx(0.7)


@pytest.mark.parametrize(("rule", "calls"), [("euler_maruyama", 251), ("heun", 501)])
def test_velocity_and_score_come_from_one_call(gaussian, rule, calls):
    field = gaussian.field(Linear(), "velocity")
    stream = NoiseStream(0, range(3))
    sde(rule=rule)(field, stream.normal(0, (3, 2, 2)), torch.zeros(3), stream=stream)
    assert (field.calls, field.items) == (calls, 3 * calls)


def test_increments_determine_the_samples(gaussian):
    field, y = gaussian.field(Linear(), "velocity"), torch.zeros(2)
    noise, increments = torch.randn(2, 3, 1), torch.randn(10, 2, 3, 1)
    first, second = (sde(num_steps=10)(field, noise, y, increments=each) for each in (increments, increments))
    assert torch.equal(first, second)
    assert not torch.equal(first, sde(num_steps=10)(field, noise, y, increments=-increments))


def test_invalid_settings_are_refused():
    for changes, message in (
        ({"rule": "rk4"}, "Choose euler_maruyama or heun"),
        ({"diffusion": "increasing-decreasing"}, "increasing_decreasing, maetok"),
        ({"norm": -1.0}, "must not be negative"),
        ({"last_step": "none"}, "last_step=none with last_step_size=0"),
        ({"last_step_size": 0.0}, "do not go together"),
        ({"last_step": "best"}, "Choose one of mean, euler, tweedie, none"),
    ):
        with pytest.raises(ValueError, match=message):
            sde(**changes)
    assert math.isfinite(sde(diffusion="sbdm").interval(FieldAtZero())[0])


class FieldAtZero:
    """The attributes of a field of velocities on the linear interpolant."""

    interpolant = Linear()

    def interval(self, margin):
        return 0.0, 1.0
