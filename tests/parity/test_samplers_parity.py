"""ODE and SDE samplers and the likelihood against trajectories of SiT, LightningDiT and MAETok."""

from itertools import pairwise

import pytest
import torch
from tests.parity.cases import Case, each_case
from tests.parity.layout import maps, tokens
from tests.parity.toys import velocity_toy
from torchdiffeq import odeint

from ldbench.core.field import Field
from ldbench.core.interpolants import GVP, VP, Linear
from ldbench.objectives.flow_matching import FlowMatching
from ldbench.objectives.times import Uniform
from ldbench.sampling.grid import batch_time, time_grid
from ldbench.sampling.guidance import ClassifierFree
from ldbench.sampling.likelihood import Likelihood
from ldbench.sampling.ode import Dopri5, FixedGrid
from ldbench.sampling.runge_kutta import get_rule
from ldbench.sampling.sde import ReverseSDE

pytestmark = pytest.mark.parity

# the official SiT's betas, which no case names
PATHS = {"Linear": Linear(), "GVP": GVP(), "VP": VP(beta_min=0.1, beta_max=20.0)}
RULES = {"euler": "euler", "heun2": "heun", "heun3": "heun3", "midpoint": "midpoint", "rk4": "rk4"}
MARGIN = 1e-3  # the official SiT's from the ends of a path where its velocity is infinite, in sampling


def field_of(backbone, path, prediction="velocity", network_time="data_at_one"):
    settings = {"prediction": prediction, "weighting": "none", "network_time": network_time}
    return FlowMatching(interpolant=PATHS[path], times=Uniform(), cosine_weight=0.0, margin=MARGIN, **settings).field(
        backbone
    )


def fixed_grid(**changes) -> FixedGrid:
    return FixedGrid(
        **{"rule": "euler", "shift": 1.0, "margin": MARGIN, "last_step": "none", "dtype": "float32", **changes}
    )


def labels(z: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(z), dtype=torch.long)


def even(shift: str) -> float:
    """Our value of a shift: theirs is 0 for equal steps."""
    return float(shift) or 1.0


@each_case("sit_ode")
def test_fixed_steps_are_those_of_sit(case, backbone_of):
    start, toy, points = case.input("z"), backbone_of(velocity_toy(case.config["toy"])), case.config["num_steps"]
    z = tokens(start)
    for name, path, prediction, rule in case.outputs(r"(\w+)\|(\w+)\|(\w+)"):
        states = list(
            fixed_grid(rule=RULES[rule], num_steps=points - 1).states(field_of(toy, path, prediction), z, labels(z))
        )
        case.check(name, maps(states[-1], start))
        case.check(f"{name}|mid", maps(states[points // 2], start))


@each_case("sit_ode_dopri5")
def test_steps_as_long_as_an_error_allows_are_those_of_sit(case, backbone_of):
    """SiT's last step passes its end, but ours ends there: a later time is requested for the same steps."""
    start, toy, points = case.input("z"), backbone_of(velocity_toy(case.config["toy"])), case.config["num_steps"]
    z = tokens(start)
    sampler = Dopri5(
        atol=case.config["atol"], rtol=case.config["rtol"], margin=MARGIN, last_step="none", dtype="float32"
    )
    for name, path, prediction in case.outputs(r"(\w+)\|(\w+)\|dopri5"):
        field = field_of(toy, path, prediction)
        times = torch.linspace(*field.interval(MARGIN), points, dtype=torch.float64)
        states = sampler.trajectory(field, z, labels(z), torch.cat([times, end_of_steps(sampler, field, z, times)]))
        case.check(name, maps(states[points - 1], start))
        case.check(f"{name}|mid", maps(states[points // 2], start))
        if path != "VP":  # the velocity of VP is infinite at the data, so that where steps end counts
            case.check(name, maps(sampler(field, z, labels(z)), start))


def end_of_steps(sampler: Dopri5, field: Field, z: torch.Tensor, times: torch.Tensor) -> torch.Tensor:  # (1,)
    """The end of torchdiffeq's last step without a bound, as in SiT: the last time at which it calls the network."""
    times_of_calls = []

    def velocity(time: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        times_of_calls.append(time)
        return field(x, batch_time(float(time), x), labels(z)).velocity

    odeint(velocity, z, times, rtol=sampler.rtol, atol=sampler.atol, method="dopri5")
    return times_of_calls[-1].reshape(1)


@each_case("sit_sde")
def test_noisy_steps_are_those_of_sit(case, backbone_of):
    start, toy, points = case.input("z"), backbone_of(velocity_toy(case.config["toy"])), case.config["num_steps"]
    z, increments = tokens(start), tokens(case.input("increments"))
    for name, path, prediction, rule, diffusion, last_step in case.outputs(
        r"(\w+)\|(\w+)\|(Euler|Heun)\|([\w-]+)\|(\w+)"
    ):
        sampler = ReverseSDE(
            rule={"Euler": "euler_maruyama", "Heun": "heun"}[rule],
            num_steps=points - 1,
            diffusion=diffusion.lower().replace("-", "_"),
            norm=1.0,  # the official SiT's default
            last_step=last_step.lower(),
            last_step_size=0.0 if last_step == "None" else case.config["last_step_size"],
            shift=1.0,
            margin=MARGIN,
            dtype="float32",
        )
        field = field_of(toy, path, prediction)
        states = list(sampler.states(field, z, labels(z), increments=increments))
        case.check(name, maps(states[-1], start))
        if f"{name}|mid" in case.facts["outputs"]:
            case.check(f"{name}|mid", maps(states[points // 2 + 1], start))
        assert field.calls == (points - 1) * (2 if rule == "Heun" else 1) + (last_step != "None"), (
            "velocity and score from one call"
        )


@each_case("lightning_ode", besides=("dopri5",))
def test_shifted_grids_are_those_of_lightningdit(case, backbone_of):
    start, points = case.input("z"), case.config["num_steps"]
    z, field = tokens(start), field_of(backbone_of(velocity_toy(case.config["toy"])), "Linear")
    for name, rule, shift in case.outputs(r"(euler|heun2)\|shift([\d.]+)"):
        states = list(fixed_grid(rule=RULES[rule], num_steps=points - 1, shift=even(shift)).states(field, z, labels(z)))
        case.check(name, maps(states[-1], start))
        case.check(f"{name}|mid", maps(states[points // 2], start))


@each_case("lightning_ode", only=("dopri5",))
def test_adaptive_steps_are_those_of_lightningdit_within_a_thousandth(case, backbone_of):
    start, points, bound = case.input("z"), case.config["num_steps"], 1e-3  # "dopri5: allow 1e-3" in the case's text
    z, toy = tokens(start), backbone_of(velocity_toy(case.config["toy"]))
    sampler = Dopri5(
        atol=case.config["atol"], rtol=case.config["rtol"], margin=MARGIN, last_step="none", dtype="float32"
    )
    for name, shift in case.outputs(r"dopri5\|shift([\d.]+)"):
        times = time_grid(0.0, 1.0, num_steps=points - 1, shift=even(shift))
        states = sampler.trajectory(field_of(toy, "Linear"), z, labels(z), times)
        case.check(name, maps(states[-1], start), bound=bound)
        case.check(f"{name}|mid", maps(states[points // 2], start), bound=bound)


# scale, from, to, with t = 1 noise: the case's text
INTERVALS = {"nocfg": (1.0, 0.0, 1.0), "cfg": (1.9, 0.0, 0.75), "cfg_low": (2.5, 0.2, 0.9)}
NULL_CLASS = 1000  # the same text
LAST_STEP = 0.04  # the same text
INTERPOLANT_NAMES = {"linear": "Linear", "cosine": "GVP"}


def labelled(case: Case, backbone_of):
    """The toy network, which reads labels."""
    return backbone_of(velocity_toy(case.config["toy"]), null_class=NULL_CLASS)


@each_case("maetok_sit_samplers", besides=("ode_heun",))
def test_maetoks_samplers_are_ours_with_the_time_turned(case, backbone_of):
    z, y, increments, points = (
        case.input("z"),
        case.input("y"),
        case.input("increments").double(),
        case.config["num_steps"],
    )
    for name, kind, path, guidance in case.outputs(r"(ode_euler|sde)_([a-z]+)_(\w+)"):
        scale, first, last = INTERVALS[guidance]
        plain = field_of(labelled(case, backbone_of), INTERPOLANT_NAMES[path], network_time="noise_at_one")
        guided = ClassifierFree(scale=scale, low=1 - last, high=1 - first, channels=None, batched=True)(plain)
        if kind == "ode_euler":
            *_, x = fixed_grid(num_steps=points, dtype="float64").states(guided, z, y)
        else:
            settings = {"rule": "euler_maruyama", "diffusion": "maetok", "last_step": "mean", "dtype": "float64"}
            sampler = ReverseSDE(
                **settings, num_steps=points - 1, norm=1.0, last_step_size=LAST_STEP, shift=1.0, margin=MARGIN
            )
            *_, x = sampler.states(guided, z, y, increments=increments)
        case.check(name, x)


@each_case("maetok_sit_samplers", only=("ode_heun",))
def test_maetoks_heun_is_ours_ending_with_eulers_rule(case, backbone_of):
    """It decides at a step's start whether both calls are guided; our guidance depends on the time of each call."""
    points, y = case.config["num_steps"], case.input("y")
    for name, path, guidance in case.outputs(r"ode_heun_([a-z]+)_(\w+)"):
        scale, first, last = INTERVALS[guidance]
        plain = field_of(labelled(case, backbone_of), INTERPOLANT_NAMES[path], network_time="noise_at_one")
        guided = ClassifierFree(scale=scale, low=0.0, high=1.0, channels=None, batched=False)(plain)
        x = case.input("z").double()
        grid = time_grid(0.0, 1.0, num_steps=points, shift=1.0).tolist()
        for start, end in pairwise(grid):
            field = guided if 1 - last - 1e-9 <= start <= 1 - first + 1e-9 else plain
            x = get_rule("heun" if end < 1 else "euler").step(
                lambda x, time, field=field: field(x, batch_time(time, x), y).velocity, x, start, end
            )
        case.check(name, x)
        if guidance == "nocfg":
            *_, whole = fixed_grid(rule="heun", num_steps=points, last_step="euler", dtype="float64").states(
                plain, case.input("z"), y
            )
            case.check(name, whole)


@each_case("sit_likelihood")
def test_the_likelihood_is_that_of_sit(case, backbone_of):
    facts, data = case.config, case.input("z")
    field = field_of(backbone_of(velocity_toy(facts["toy"])), facts["path"], facts["prediction"])
    likelihood = Likelihood(
        rule=RULES[facts["method"]], num_steps=facts["num_steps"] - 1, shift=1.0, margin=MARGIN, dtype="float32"
    )
    result = likelihood(field, tokens(data), labels(data), probes=tokens(case.input("rademacher")))
    case.check("logp", result.nats)
    case.check("z_end", maps(result.noise, data))
    assert field.calls == facts["num_steps"] - 1
