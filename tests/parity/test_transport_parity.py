"""Interpolants, flow-matching losses and normalisation against the numbers of SiT, LightningDiT and MAETok."""

import pytest
import torch
from einops import rearrange

from ldbench.core.interpolant import convert, spread
from ldbench.core.interpolants import GVP, VP, Linear
from ldbench.core.normalizer import Normalizer
from ldbench.objectives.flow_matching import FlowMatching
from ldbench.objectives.times import LogitNormal, NormalLogSNR, Uniform
from ldbench.sampling.grid import time_grid
from ldbench.sampling.sde import PULLS, ReverseSDE

pytestmark = pytest.mark.parity

PATHS = {"Linear": Linear(), "GVP": GVP(), "VP": VP(beta_min=0.1, beta_max=20.0)}
DIFFUSIONS = {
    "SBDM": "sbdm",
    "sigma": "sigma",
    "linear": "linear",
    "decreasing": "decreasing",
    "increasing-decreasing": "increasing_decreasing",
}


def tokens(maps):
    return rearrange(maps, "b c h w -> b (h w) c")


def first_channel(z, side):
    return rearrange(z[..., 0], "b (h w) -> b h w", h=side)


def toy(x, t, y):
    return 0.4 * x - 0.2 * torch.sin(3 * t)


def flow_matching(**changes) -> FlowMatching:
    words = {"prediction": "velocity", "weighting": "none", "network_time": "data_at_one"}
    return FlowMatching(
        **{**words, "interpolant": Linear(), "times": Uniform(), "cosine_weight": 0.0, "margin": 1e-3, **changes}
    )


@pytest.mark.parametrize("path", PATHS)
def test_coefficients_and_states_are_those_of_sit(open_case, path):
    case, interpolant = open_case("sit_transport"), PATHS[path]
    noise, data, t = tokens(case.input("x0")), tokens(case.input("x1")), case.input("t")
    c = interpolant.at(t)
    case.check(f"coef|{path}", torch.stack([c.alpha, c.alpha_dot, c.sigma, c.sigma_dot]))
    x, velocity = interpolant.between(noise, data, t)
    case.check(f"x_t|{path}", rearrange(x, "b (h w) c -> b c h w", h=8))
    case.check(f"target|{path}", rearrange(velocity, "b (h w) c -> b c h w", h=8))
    case.check(f"f_minus|{path}", first_channel(spread(-c.alpha_dot / c.alpha, noise) * noise, 8))
    case.check(f"g_term|{path}", c.diffusion)
    for theirs, ours in DIFFUSIONS.items():
        case.check(f"w|{path}|{theirs}", PULLS[ours](c, t.double(), 1.0) * c.sigma)


@pytest.mark.parametrize("path", PATHS)
def test_one_prediction_tells_what_sit_tells_by_two(open_case, backbone_of, path):
    case, interpolant = open_case("sit_transport"), PATHS[path]
    noise, data, t = tokens(case.input("x0")), tokens(case.input("x1")), case.input("t")
    for prediction in ("velocity", "score", "noise"):
        told = flow_matching(interpolant=interpolant, prediction=prediction).field(backbone_of(toy))(
            noise, t, torch.zeros(3)
        )
        case.check(f"ode_drift|{path}|{prediction}", first_channel(told.velocity, 8))
        case.check(f"score|{path}|{prediction}", first_channel(told.score, 8))
    case.check(
        f"noise_from_velocity|{path}",
        first_channel(convert(noise, data, interpolant.at(t), source="velocity", target="noise"), 8),
    )
    case.check(
        f"velocity_from_score|{path}",
        first_channel(convert(noise, data, interpolant.at(t), source="score", target="velocity"), 8),
    )


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("prediction", ["velocity", "score", "noise"])
def test_losses_are_those_of_sit(open_case, backbone_of, path, prediction):
    case = open_case("sit_transport")
    noise, data, t = tokens(case.input("x0")), tokens(case.input("x1")), case.input("t")
    for theirs, ours in (("None", "none"), ("velocity", "velocity"), ("likelihood", "likelihood")):
        weighting = (
            "none" if prediction == "velocity" else ours
        )  # SiT passes over the weighting of velocities, we refuse it
        objective = flow_matching(interpolant=PATHS[path], prediction=prediction, weighting=weighting)
        terms = objective.loss(backbone_of(toy), data, torch.zeros(3), step=0, t=t, noise=noise)
        case.check(f"loss|{path}|{prediction}|{theirs}", terms[prediction])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("prediction", ["velocity", "score", "noise"])
def test_the_intervals_are_those_of_sit(open_case, backbone_of, path, prediction):
    case = open_case("sit_transport")
    training = PATHS[path].interval(prediction, 1e-5 if path == "VP" else 1e-3)
    field = flow_matching(interpolant=PATHS[path], prediction=prediction).field(backbone_of(toy))
    rows = [training, field.interval(1e-3)]
    for diffusion in ("sbdm", "sigma"):
        for size in (0.0, 0.04):
            last_step = "mean" if size else "none"
            words = {"rule": "euler_maruyama", "diffusion": diffusion, "last_step": last_step, "dtype": "float32"}
            rows.append(
                ReverseSDE(**words, num_steps=25, norm=1.0, last_step_size=size, shift=1.0, margin=1e-3).interval(field)
            )
    if (
        path != "VP" and prediction == "velocity"
    ):  # SiT starts at t = 0, where the SBDM coefficient is infinite; we keep the margin
        assert rows[2][0] == rows[3][0] == 1e-3
        rows[2:4] = [(0.0, last) for _, last in rows[2:4]]
    case.check(f"interval|{path}|{prediction}", torch.tensor(rows, dtype=torch.float64))


def test_the_cosine_term_and_the_times_are_those_of_lightningdit(open_case, backbone_of):
    case = open_case("lightning_loss")
    noise, data, t = tokens(case.input("x0")), tokens(case.input("x1")), case.input("t")
    terms = flow_matching(cosine_weight=1.0).loss(backbone_of(toy), data, torch.zeros(3), step=0, t=t, noise=noise)
    case.check("mse", terms["velocity"])
    case.check("cos_loss", terms["cosine"])
    case.check("total_mean", sum(terms.values()).mean())
    for name, mean in (("t_logit_normal", 0.0), ("t_logit_normal_mu_-0.5_sigma_1", -0.5)):
        case.check(
            name,
            LogitNormal(mean=mean, std=1.0, shift=1.0, uniform_after=None).times(case.input("time_normal")).float(),
        )


def test_the_grid_is_that_of_lightningdit(open_case):
    case = open_case("lightning_time_grid")
    for theirs, ours in ((0.0, 1.0), (0.3, 0.3), (1.0, 1.0), (3.0, 3.0)):  # 0 is its word for even steps
        case.check(f"grid_shift{theirs}", time_grid(0.0, 1.0, num_steps=249, shift=ours).float())


@pytest.mark.parametrize(("path", "interpolant"), [("linear", Linear()), ("cosine", GVP())])
def test_maetoks_times_and_losses_are_ours_with_the_time_turned(open_case, backbone_of, path, interpolant):
    case = open_case("maetok_sit_loss")
    data, noise = case.input("x1"), case.input("noise")
    law = NormalLogSNR(interpolant=interpolant, mean=0.0, std=1.0)
    for weighting, t in (
        ("uniform", 1 - case.input("time_uniform").double()),
        ("lognormal", law.times(-case.input("time_normal"))),
    ):
        case.check(f"{path}_{weighting}.t", (1 - t).float())
        case.check(f"{path}_{weighting}.x_t", interpolant.mix(noise, data, t))
        objective = flow_matching(interpolant=interpolant, times=law, network_time="noise_at_one")
        terms = objective.loss(backbone_of(toy), data, torch.zeros(4), step=0, t=t, noise=noise)
        case.check(f"{path}_{weighting}.loss", terms["velocity"])


def test_latents_are_normalised_as_in_lightningdit(open_case):
    case = open_case("latent_normalisation")
    z = tokens(case.input("latents"))
    mean, std = z.mean(dim=(0, 1)), z.flatten(0, 1).std(dim=0)
    case.check("mean", mean.reshape(1, -1, 1, 1))
    case.check("std", std.reshape(1, -1, 1, 1))
    normaliser = Normalizer.from_stats(mean.reshape(1, -1, 1, 1), std.reshape(1, -1, 1, 1), channels=6, multiplier=1.7)
    normalised = normaliser.normalize(z)
    case.check("normalised", rearrange(normalised, "b (h w) c -> b c h w", h=4))
    case.check("restored", rearrange(normaliser.restore(normalised), "b (h w) c -> b c h w", h=4))
