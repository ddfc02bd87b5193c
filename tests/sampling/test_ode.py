"""ODE samplers: they map noise to a known Gaussian, with the order of their rule, for all kinds of predictions."""

import pytest
import torch
from tests.examples import checkerboard

from ldbench.core.interpolants import GVP, VP, Discrete, Linear
from ldbench.sampling.ode import Dopri5, FixedGrid
from ldbench.sampling.runge_kutta import RULES

INTERPOLANTS = {
    "linear": Linear(),
    "gvp": GVP(),
    "vp": VP(beta_min=0.1, beta_max=20.0),
    "discrete": Discrete(schedule="linear", num_times=1000),
}
FIELDS = [
    field
    for field in checkerboard(INTERPOLANTS, ("velocity", "score", "noise", "data", "angular"))
    if field.values != ("linear", "angular")
]
Y = torch.zeros(8, dtype=torch.long)


def noise():
    return torch.randn(8, 3, 2, generator=torch.Generator().manual_seed(0))


def fixed_grid(**changes) -> FixedGrid:
    return FixedGrid(
        **{
            "rule": "euler",
            "num_steps": 50,
            "shift": 1.0,
            "margin": 1e-3,
            "last_step": "tweedie",
            "dtype": "float64",
            **changes,
        }
    )


def dopri5(**changes) -> Dopri5:
    return Dopri5(**{"atol": 1e-6, "rtol": 1e-5, "margin": 1e-3, "last_step": "tweedie", "dtype": "float64", **changes})


@pytest.mark.parametrize("rule", ["euler", "heun", "rk4"])
@pytest.mark.parametrize(("name", "kind"), FIELDS)
def test_fixed_steps_carry_noise_to_a_known_gaussian(gaussian, rule, name, kind):
    interpolant = INTERPOLANTS[name]
    field = gaussian.field(interpolant, kind)
    samples = fixed_grid(rule=rule, num_steps={"euler": 100, "heun": 60, "rk4": 30}[rule])(field, noise(), Y)
    assert samples.dtype == torch.float32
    torch.testing.assert_close(
        samples, gaussian.flow(interpolant, noise()), rtol=0, atol=0.04 if rule == "euler" else 4e-3
    )


@pytest.mark.parametrize(("name", "kind"), FIELDS)
def test_single_precision_is_enough(gaussian, name, kind):
    interpolant = INTERPOLANTS[name]
    samples = fixed_grid(rule="heun", num_steps=60, dtype="float32")(gaussian.field(interpolant, kind), noise(), Y)
    torch.testing.assert_close(samples, gaussian.flow(interpolant, noise()), rtol=0, atol=5e-3)


@pytest.mark.parametrize(("name", "rule"), checkerboard(("linear", "gvp", "vp"), RULES))
def test_a_rule_converges_with_its_order(gaussian, slope, name, rule):
    interpolant, errors = INTERPOLANTS[name], []
    nums_steps = (40, 80, 160)
    for num_steps in nums_steps:
        sampler = fixed_grid(rule=rule, num_steps=num_steps, last_step="none", margin=0.1 if name == "vp" else 1e-3)
        *_, x = sampler.states(gaussian.field(interpolant, "velocity"), noise().double(), Y)
        end = 0.9 if name == "vp" else 1.0
        errors.append(float((x - at_time(gaussian, interpolant, noise().double(), end)).abs().max()))
    order = slope(nums_steps, errors)
    assert order > RULES[rule].order - 0.3  # on straight lines the midpoint rule has one more
    assert order < RULES[rule].order + (1.2 if name == "linear" else 0.3)


def at_time(gaussian, interpolant, noise, time):
    """The state of the flow at a time."""
    c = interpolant.at(torch.tensor([time], dtype=torch.float64))
    deviation = float((c.alpha.square() * gaussian.std**2 + c.sigma.square()).sqrt())
    return (
        float(c.alpha) * gaussian.mean + deviation * (gaussian.flow(interpolant, noise) - gaussian.mean) / gaussian.std
    )


@pytest.mark.parametrize(("name", "kind"), [field for field in FIELDS if field.values[0] != "discrete"])
def test_adaptive_steps_carry_noise_to_a_known_gaussian(gaussian, name, kind):
    interpolant = INTERPOLANTS[name]
    samples = dopri5()(gaussian.field(interpolant, kind), noise(), Y)
    torch.testing.assert_close(samples, gaussian.flow(interpolant, noise()), rtol=0, atol=3e-3)


@pytest.mark.parametrize("shift", [0.3, 3.0])
def test_a_shifted_grid_gives_the_same_samples(gaussian, shift):
    samples = fixed_grid(rule="heun", shift=shift)(gaussian.field(Linear(), "velocity"), noise(), Y)
    torch.testing.assert_close(samples, gaussian.flow(Linear(), noise()), rtol=0, atol=2e-3)


def test_a_last_step_by_eulers_rule_makes_no_call_at_the_data(gaussian):
    for interpolant, kind in ((Linear(), "data"), (VP(beta_min=0.1, beta_max=20.0), "velocity")):
        field = gaussian.field(interpolant, kind)
        samples = fixed_grid(rule="heun", num_steps=200, last_step="euler")(field, noise(), Y)
        torch.testing.assert_close(samples, gaussian.flow(interpolant, noise()), rtol=0, atol=5e-3)
        assert field.calls == 2 * 200 - 1


@pytest.mark.parametrize("rule", RULES)
def test_calls_are_the_stages_of_the_steps_and_one_more_if_the_end_is_singular(gaussian, rule):
    for kind, more in (("velocity", 0), ("data", 1)):
        field = gaussian.field(Linear(), kind)
        fixed_grid(rule=rule, num_steps=10)(field, noise(), Y)
        assert (field.calls, field.items) == (
            10 * len(RULES[rule].nodes) + more,
            8 * (10 * len(RULES[rule].nodes) + more),
        )


def test_states_start_with_the_noise_and_end_with_the_samples(gaussian):
    states = list(fixed_grid(num_steps=4).states(gaussian.field(Linear(), "velocity"), noise(), Y))
    assert len(states) == 5
    assert torch.equal(states[0], noise().double())


def test_no_gradient_is_kept(backbone_of, gaussian):
    field = gaussian.field(Linear(), "velocity")
    start = noise().requires_grad_()
    assert not fixed_grid(num_steps=3)(field, start, Y).requires_grad
    assert not dopri5()(field, start, Y).requires_grad


def test_invalid_settings_are_refused():
    for build, message in (
        (lambda: fixed_grid(rule="rk45"), "Unknown rule 'rk45'"),
        (lambda: fixed_grid(last_step="mean"), "Choose one of tweedie, none, euler"),
        (lambda: dopri5(last_step="euler"), "Choose one of tweedie, none"),
        (lambda: dopri5(atol=0.0), "atol and rtol above zero"),
        (lambda: dopri5().check(INTERPOLANTS["discrete"]), r"has 1000 discrete timesteps\. Choose sampler=ancestral"),
    ):
        with pytest.raises(ValueError, match=message):
            build()
    for interpolant in INTERPOLANTS.values():
        fixed_grid().check(interpolant)
