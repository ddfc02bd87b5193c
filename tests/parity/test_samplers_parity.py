"""ODE and SDE samplers and the likelihood against trajectories of SiT, LightningDiT and MAETok."""

from itertools import pairwise

import pytest
import torch
from einops import rearrange

from ldbench.core.interpolants import GVP, VP, Linear
from ldbench.objectives.flow_matching import FlowMatching
from ldbench.objectives.times import Uniform
from ldbench.sampling.grid import at, time_grid
from ldbench.sampling.guidance import ClassifierFree
from ldbench.sampling.likelihood import Likelihood
from ldbench.sampling.ode import Dopri5, FixedGrid
from ldbench.sampling.runge_kutta import rule_named
from ldbench.sampling.sde import ReverseSDE

pytestmark = pytest.mark.parity

PATHS = {"Linear": Linear(), "GVP": GVP(), "VP": VP(beta_min=0.1, beta_max=20.0)}
RULES = {"euler": "euler", "heun2": "heun", "heun3": "heun3", "midpoint": "midpoint", "rk4": "rk4"}
Y = torch.zeros(2, dtype=torch.long)


def tokens(maps):
    return rearrange(maps, "... c h w -> ... (h w) c")


def maps(z, side):
    return rearrange(z, "b (h w) c -> b c h w", h=side)


def field_of(backbone, path, prediction="velocity", network_time="data_at_one"):
    words = {"prediction": prediction, "weighting": "none", "network_time": network_time}
    return FlowMatching(interpolant=PATHS[path], times=Uniform(), cosine_weight=0.0, margin=1e-3, **words).field(
        backbone
    )


@pytest.fixture
def toy(backbone_of):
    return backbone_of(lambda x, t, y: 0.4 * x - 0.2 * torch.sin(3 * t))


def fixed_grid(**changes) -> FixedGrid:
    return FixedGrid(
        **{
            "rule": "euler",
            "num_steps": 24,
            "shift": 1.0,
            "margin": 1e-3,
            "last_step": "none",
            "dtype": "float32",
            **changes,
        }
    )


@pytest.mark.parametrize("rule", RULES)
def test_fixed_steps_are_those_of_sit(open_case, toy, rule):
    case = open_case("sit_ode")
    z = tokens(case.input("z"))
    for path, prediction in (
        ("Linear", "velocity"),
        ("GVP", "velocity"),
        ("VP", "noise"),
        ("Linear", "score"),
        ("GVP", "noise"),
    ):
        states = list(fixed_grid(rule=RULES[rule]).states(field_of(toy, path, prediction), z, Y))
        case.check(f"{path}|{prediction}|{rule}", maps(states[-1], 6))
        case.check(f"{path}|{prediction}|{rule}|mid", maps(states[12], 6))


def test_steps_as_long_as_an_error_allows_are_those_of_sit(open_case, toy):
    """SiT's last step goes past its end, on VP to t = 1.19; ours ends there, so that a later time must be asked for to take the same steps."""
    case = open_case("sit_ode_dopri5")
    z = tokens(case.input("z"))
    sampler = Dopri5(atol=1e-6, rtol=1e-3, margin=1e-3, last_step="none", dtype="float32")
    for path, prediction in (
        ("Linear", "velocity"),
        ("GVP", "velocity"),
        ("VP", "noise"),
        ("Linear", "score"),
        ("GVP", "noise"),
    ):
        field = field_of(toy, path, prediction)
        times = torch.linspace(*field.interval(1e-3), 25, dtype=torch.float64)
        times = torch.cat([times, torch.tensor([1.2], dtype=torch.float64)]) if path == "VP" else times
        states = sampler.states(field, z, Y, times)
        case.check(f"{path}|{prediction}|dopri5", maps(states[24], 6))
        case.check(f"{path}|{prediction}|dopri5|mid", maps(states[12], 6))
        if path != "VP":
            case.check(f"{path}|{prediction}|dopri5", maps(sampler(field, z, Y), 6))


@pytest.mark.parametrize("rule", ["Euler", "Heun"])
def test_noisy_steps_are_those_of_sit(open_case, toy, rule):
    case = open_case("sit_sde")
    z, increments = tokens(case.input("z")), tokens(case.input("increments"))
    checked = 0
    for name in [name for name in case.facts["outputs"] if not name.endswith("|mid") and name.split("|")[2] == rule]:
        path, prediction, _, diffusion, last_step = name.split("|")
        sampler = ReverseSDE(
            rule={"Euler": "euler_maruyama", "Heun": "heun"}[rule],
            num_steps=24,
            diffusion=diffusion.lower(),
            norm=1.0,
            last_step=last_step.lower(),
            last_step_size=0.0 if last_step == "None" else 0.04,
            shift=1.0,
            margin=1e-3,
            dtype="float32",
        )
        field = field_of(toy, path, prediction)
        states = list(sampler.states(field, z, Y, increments=increments))
        case.check(name, maps(states[-1], 6))
        if f"{name}|mid" in case.facts["outputs"]:
            case.check(f"{name}|mid", maps(states[13], 6))
        assert field.calls == 24 * (2 if rule == "Heun" else 1) + (last_step != "None"), (
            "velocity and score from one call"
        )
        checked += 1
    assert checked >= 30


def test_shifted_grids_are_those_of_lightningdit(open_case, toy):
    case = open_case("lightning_ode")
    z = tokens(case.input("z"))
    field = field_of(toy, "Linear")
    for theirs, shift in ((0.0, 1.0), (0.3, 0.3)):
        for rule in ("euler", "heun2"):
            states = list(fixed_grid(rule=RULES[rule], num_steps=39, shift=shift).states(field, z, Y))
            case.check(f"{rule}|shift{theirs}", maps(states[-1], 4))
            case.check(f"{rule}|shift{theirs}|mid", maps(states[20], 4))


def test_adaptive_steps_are_those_of_lightningdit_within_a_thousandth(open_case, toy):
    """The case allows 1e-3 here, and 2e-4 for fixed steps."""
    case = open_case("lightning_ode")
    for theirs, shift in ((0.0, 1.0), (0.3, 0.3)):
        sampler = Dopri5(atol=1e-6, rtol=1e-3, margin=1e-3, last_step="none", dtype="float32")
        states = sampler.states(
            field_of(toy, "Linear"), tokens(case.input("z")), Y, time_grid(0.0, 1.0, num_steps=39, shift=shift)
        )
        assert case.error(f"dopri5|shift{theirs}", maps(states[-1], 4)) < 1e-3
        assert case.error(f"dopri5|shift{theirs}|mid", maps(states[20], 4)) < 1e-3


INTERVALS = {
    "nocfg": (1.0, 0.0, 1.0),
    "cfg": (1.9, 1 - 0.75, 1.0),
    "cfg_low": (2.5, 1 - 0.9, 1 - 0.2),
}  # its are in a time with t = 1 noise
MAETOK = [
    (path, house, guidance) for path, house in (("linear", "Linear"), ("cosine", "GVP")) for guidance in INTERVALS
]


@pytest.fixture
def labelled(backbone_of):
    return backbone_of(lambda x, t, y: 0.4 * x - 0.2 * torch.sin(3 * t) + 0.01 * y / 1000, null_class=1000)


@pytest.mark.parametrize(("path", "house", "guidance"), MAETOK)
def test_maetoks_samplers_are_ours_with_the_time_turned(open_case, labelled, path, house, guidance):
    case, (scale, low, high) = open_case("maetok_sit_samplers"), INTERVALS[guidance]
    guided = ClassifierFree(scale=scale, low=low, high=high, channels=None, batched=True)(
        field_of(labelled, house, network_time="noise_at_one")
    )
    z, y, increments = case.input("z"), case.input("y"), case.input("increments").double()
    *_, x = fixed_grid(num_steps=20, dtype="float64").states(guided, z, y)
    case.check(f"ode_euler_{path}_{guidance}", x)
    words = {"rule": "euler_maruyama", "diffusion": "maetok", "last_step": "mean", "dtype": "float64"}
    sampler = ReverseSDE(**words, num_steps=19, norm=1.0, last_step_size=0.04, shift=1.0, margin=1e-3)
    *_, x = sampler.states(guided, z, y, increments=increments)
    case.check(f"sde_{path}_{guidance}", x)


@pytest.mark.parametrize(("path", "house", "guidance"), MAETOK)
def test_maetoks_heun_is_ours_ending_with_eulers_rule(open_case, labelled, path, house, guidance):
    """It decides at the beginning of a step whether both of its calls are guided; our guidance asks where each call stands."""
    case, (scale, low, high) = open_case("maetok_sit_samplers"), INTERVALS[guidance]
    plain = field_of(labelled, house, network_time="noise_at_one")
    guided = ClassifierFree(scale=scale, low=0.0, high=1.0, channels=None, batched=False)(plain)
    x, y = case.input("z").double(), case.input("y")
    grid = time_grid(0.0, 1.0, num_steps=20, shift=1.0).tolist()
    for start, end in pairwise(grid):
        field = guided if low - 1e-9 <= start <= high + 1e-9 else plain
        x = rule_named("heun" if end < 1 else "euler").step(
            lambda x, time, field=field: field(x, at(time, x), y).velocity, x, start, end
        )
    case.check(f"ode_heun_{path}_{guidance}", x)
    if guidance == "nocfg":
        *_, whole = fixed_grid(rule="heun", num_steps=20, last_step="euler", dtype="float64").states(
            plain, case.input("z"), y
        )
        case.check(f"ode_heun_{path}_{guidance}", whole)


def test_the_likelihood_is_that_of_sit(open_case, backbone_of):
    case = open_case("sit_likelihood")
    field = field_of(backbone_of(lambda x, t, y: torch.tanh(0.7 * x) - 0.2 * torch.sin(3 * t)), "Linear")
    likelihood = Likelihood(rule="euler", num_steps=10, shift=1.0, margin=1e-3, dtype="float32")
    found = likelihood(field, tokens(case.input("z")), Y, probes=tokens(case.input("rademacher")))
    case.check("logp", found.nats)
    case.check("z_end", maps(found.noise, 4))
    assert field.calls == 10
