"""Every option of the groups of generation builds; every combination samples a known Gaussian or is refused with
advice.
"""

from functools import cache
from itertools import product

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from tests.examples import checkerboard

from ldbench.config.components import instantiate, parameter_names
from ldbench.config.compose import Registry
from ldbench.core.field import Field
from ldbench.core.interfaces import Guidance, Objective, Sampler
from ldbench.core.interpolant import KINDS, Interpolant, expand_like

INTERPOLANTS, TIMES, OBJECTIVES, SAMPLERS, GUIDANCES = (
    sorted(Registry().options(group)) for group in ("interpolant", "times", "objective", "sampler", "guidance")
)
NULL = 5
Y = torch.arange(4) % NULL


@cache
def node(group: str, name: str) -> dict:
    """One option of a group, composed with its defaults."""
    return OmegaConf.to_container(Registry().option(group, name))


def chosen(**names: str) -> DictConfig:
    """A config of some options, one for each group, as in an entry point."""
    return OmegaConf.create({group: node(group, name) for group, name in names.items()})


@cache
def objective_of(interpolant: str, times: str, objective: str, prediction: str) -> Objective | None:
    """The objective; None where the combination is refused, which must come with advice."""
    cfg = chosen(interpolant=interpolant, times=times, objective=objective)
    if "prediction" in cfg.objective:
        cfg.objective.prediction = prediction
    elif prediction != "velocity":
        return None
    return accepted(instantiate, cfg.objective)


def accepted(make, *arguments):
    """The built object; None where the arguments are refused, which must come with advice."""
    try:
        return make(*arguments)
    except ValueError as error:
        if "Choose" not in str(error):
            raise
        return None


def refused(sampler: Sampler, objective: Objective, field: Field) -> bool:
    check_field = getattr(sampler, "check_field", lambda field: None)
    return not accepted(lambda: sampler.check(objective.interpolant) or check_field(field) or True)


class Perfect:
    """The perfect backbone for Gaussian data, in the prediction and time of its objective, with 2 C outputs where it
    has them.
    """

    null_class = NULL

    def __init__(self, gaussian, objective: Objective):
        self.gaussian, self.objective = gaussian, objective
        self.learned_variance = objective.learned_variance

    def __call__(self, x, t, y, *, r=None):
        objective = self.objective
        if r is not None and not torch.equal(t, r):
            return self.average(x, t, r)
        if objective.interpolant.num_times is not None:
            predicted = self.gaussian.predict(
                objective.interpolant, objective.prediction, x, 1 - (t.double() + 1) / objective.interpolant.num_times
            )
        else:
            at = objective.network_time
            predicted = self.gaussian.predict(
                objective.interpolant, objective.prediction, x, (t.double() - at.start) / at.direction
            )
            predicted = at.velocity(predicted) if objective.prediction == "velocity" else predicted
        return torch.cat([predicted, torch.zeros_like(predicted)], dim=-1) if self.learned_variance else predicted

    def average(self, x, t, r):
        """The average velocity between two times: the paths of Gaussian data are linear maps."""
        (start, spread), (end, wider) = (self.moments(self.objective.interpolant.at(time)) for time in (t, r))
        at_r = expand_like(end, x) + expand_like(wider / spread, x) * (x - expand_like(start, x))
        velocity = self.gaussian.predict(self.objective.interpolant, "velocity", x, t)
        gap = expand_like(r - t, x)
        return torch.where(gap == 0, velocity, (at_r - x) / torch.where(gap == 0, 1, gap))

    def moments(self, c):
        """The mean and the standard deviation of noisy data."""
        return c.alpha * self.gaussian.mean, (c.alpha.square() * self.gaussian.std**2 + c.sigma.square()).sqrt()


@pytest.mark.slow
def test_refusals_leave_what_ought_to_compose():
    # interpolants x predictions: angular not on straight lines; noise, data and angular in counted times
    continuous, discrete = (3 * 5 - 1, 2 * 3)
    # its velocities
    every = {
        "diffusion": discrete,
        "flow_matching": continuous,
        "flow_matching_maetok": continuous,
        "flow_matching_cosine": 3,
        "flow_matching_data": continuous - 3,  # its error is the velocity's, and so its prediction is another
        "mean_flow": 2,  # velocities that are finite at both ends
    }
    found = [options for options in product(INTERPOLANTS, TIMES, OBJECTIVES, KINDS) if objective_of(*options)]
    for times, objective in product(TIMES, OBJECTIVES):
        expected = 0 if times == "counted" and objective != "diffusion" else every[objective]
        assert sum(options[1:3] == (times, objective) for options in found) == expected, (times, objective)


@pytest.mark.parametrize("name", INTERPOLANTS)
def test_an_interpolant_is_one(name):
    interpolant = instantiate(node("interpolant", name))
    assert isinstance(interpolant, Interpolant)
    assert interpolant.revision >= 1
    first, last = interpolant.interval("noise", 1e-3)
    assert 0 <= first < last <= 1
    assert (interpolant.at(torch.linspace(0.01, 0.99, 50)).log_snr.diff() > 0).all()


@pytest.mark.parametrize("name", TIMES)
def test_a_distribution_of_times_draws_them_in_the_unit_interval(name):
    distribution = instantiate(chosen(interpolant="discrete_linear", times=name).times)
    assert distribution.revision >= 1
    for step in (0, 10**6):
        t = distribution.sample(100, step=step, num_numbers=64, rng=torch.Generator().manual_seed(0))
        assert (t.shape, t.dtype) == ((100,), torch.float64)
        assert ((t >= 0) & (t <= 1)).all()


@pytest.mark.parametrize(("times", "objective"), checkerboard(TIMES, OBJECTIVES))
def test_an_objective_has_finite_terms_for_each_image_and_a_field_of_the_data(gaussian, times, objective):
    found = [
        built for options in product(INTERPOLANTS, [times], [objective], KINDS) if (built := objective_of(*options))
    ]
    assert found or (times == "counted" and objective != "diffusion")
    for built in found:
        assert isinstance(built, Objective)
        assert built.revision >= 1
        backbone = Perfect(gaussian, built)
        torch.manual_seed(0)
        terms = built.loss(backbone, gaussian.mean + gaussian.std * torch.randn(4, 6, 2), Y, step=0)
        for value in terms.values():
            assert (value.shape, value.dtype) == ((4,), torch.float32)
            assert torch.isfinite(value).all()
        field = built.field(backbone)
        assert isinstance(field, Field)
        x, t = torch.randn(4, 6, 2), torch.full((4,), 0.4)
        for view in ("velocity", "score", "noise", "data"):
            torch.testing.assert_close(
                getattr(field(x, t, Y), view), gaussian.predict(built.interpolant, view, x, t), rtol=5e-3, atol=5e-3
            )
        assert field.null_class == NULL


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_carries_noise_to_a_known_gaussian_or_is_refused_with_advice(gaussian, some, name):
    few = {key: value for key, value in (("num_steps", 60), ("respacing", "60")) if key in node("sampler", name)}
    built = instantiate(node("sampler", name) | few)
    assert isinstance(built, Sampler)
    assert built.revision >= 1
    torch.manual_seed(0)
    noise, increments = torch.randn(4, 500, 2), torch.randn(61, 4, 500, 2)
    every = [
        options
        for options in product(INTERPOLANTS, ["uniform"], OBJECTIVES, KINDS)
        if objective_of(*options) is not None
    ]
    objectives = [objective_of(*options) for options in every]
    fits = [not refused(built, objective, objective.field(Perfect(gaussian, objective))) for objective in objectives]
    fit = [options for options, fitting in zip(every, fits, strict=True) if fitting]
    assert len(fit) >= (2 if name == "mean_flow" else 8)
    for options in some(fit, 6, SAMPLERS.index(name)):
        generator = objective_of(*options)
        field = generator.field(Perfect(gaussian, generator))
        found = built(field, noise, Y, increments=increments if built.stochastic else None)
        assert (found.shape, found.dtype) == (noise.shape, torch.float32)
        assert float(found.mean()) == pytest.approx(gaussian.mean, abs=0.05), options
        assert float(found.std()) == pytest.approx(gaussian.std, abs=0.05), options


@pytest.mark.parametrize("name", GUIDANCES)
def test_a_guidance_that_has_nothing_to_correct_changes_nothing(gaussian, name):
    generator = objective_of("gvp", "uniform", "flow_matching", "velocity")
    field, guide = (generator.field(Perfect(gaussian, generator)) for _ in range(2))
    facts = {"guide": guide} if "guide" in parameter_names(node("guidance", name)["_target_"]) else {}
    field.with_inner = lambda x, t, y: (field.predict(x, t, y), guide.predict(x, t, y))
    guidance = instantiate(node("guidance", name), **facts)
    assert isinstance(guidance, Guidance)
    assert guidance.revision >= 1
    x, t = torch.randn(4, 6, 5), torch.tensor([0.1, 0.4, 0.7, 0.9], dtype=torch.float64)
    torch.testing.assert_close(guidance(field)(x, t, Y).value, field(x, t, Y).value, rtol=1e-4, atol=1e-4)


def test_the_interpolant_on_the_command_line_reaches_the_objective_and_its_times():
    built = objective_of("gvp", "normal_log_snr", "flow_matching", "velocity")
    assert type(built.interpolant).__name__ == type(built.times.interpolant).__name__ == "GVP"
