"""Interpolants, flow-matching losses and normalization against the numbers of SiT, LightningDiT and MAETok."""

import pytest
import torch
from tests.parity.cases import Case, each_case
from tests.parity.layout import maps, tokens
from tests.parity.toys import velocity_toy

from ldbench.core.interpolant import convert, expand_like
from ldbench.core.interpolants import GVP, VP, Linear
from ldbench.core.normalizer import Normalizer
from ldbench.objectives.flow_matching import FlowMatching
from ldbench.objectives.times import LogitNormal, NormalLogSNR, Uniform
from ldbench.sampling.grid import time_grid
from ldbench.sampling.sde import DIFFUSION_OVER_SIGMA, ReverseSDE

pytestmark = pytest.mark.parity

# the official SiT's betas, which no case names
PATHS = {"Linear": Linear(), "GVP": GVP(), "VP": VP(beta_min=0.1, beta_max=20.0)}
MARGIN = 1e-3  # the official SiT's from the ends of a path where its velocity is infinite,
TRAINING_MARGINS = {"VP": 1e-5}  # and in training, where that is another


def labels(z: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(z))


def flow_matching(**changes) -> FlowMatching:
    settings = {"prediction": "velocity", "weighting": "none", "network_time": "data_at_one"}
    return FlowMatching(
        **{**settings, "interpolant": Linear(), "times": Uniform(), "cosine_weight": 0.0, "margin": MARGIN, **changes}
    )


def states_of(case: Case) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noise and data as tokens, and their times."""
    return tokens(case.input("x0")), tokens(case.input("x1")), case.input("t")


def first_channel(z: torch.Tensor, case: Case) -> torch.Tensor:
    return maps(z, case.input("x0"))[:, 0]


OF_A_PREDICTION = ("ode_drift|", "score|", "noise_from_velocity|", "velocity_from_score|")


@each_case("sit_transport", besides=(*OF_A_PREDICTION, "loss|", "interval|"))
def test_coefficients_and_states_are_those_of_sit(case):
    noise, data, t = states_of(case)
    for name, path in case.outputs(r"coef\|(\w+)"):
        interpolant = PATHS[path]
        c = interpolant.at(t)
        case.check(name, torch.stack([c.alpha, c.alpha_dot, c.sigma, c.sigma_dot]))
        x, velocity = interpolant.between(noise, data, t)
        case.check(f"x_t|{path}", maps(x, case.input("x0")))
        case.check(f"target|{path}", maps(velocity, case.input("x0")))
        case.check(f"f_minus|{path}", first_channel(expand_like(-c.alpha_dot / c.alpha, noise) * noise, case))
        case.check(f"g_term|{path}", c.diffusion)
        for weight, theirs in case.outputs(rf"w\|{path}\|([\w-]+)"):
            case.check(weight, DIFFUSION_OVER_SIGMA[theirs.lower().replace("-", "_")](c, t.double(), 1.0) * c.sigma)


@each_case("sit_transport", only=OF_A_PREDICTION)
def test_one_prediction_gives_both_outputs_of_sit(case, backbone_of):
    (noise, data, t), toy = states_of(case), backbone_of(velocity_toy(case.config["toy"]))
    for name, path, prediction in case.outputs(r"ode_drift\|(\w+)\|(\w+)"):
        predicted = flow_matching(interpolant=PATHS[path], prediction=prediction).field(toy)(noise, t, labels(noise))
        case.check(name, first_channel(predicted.velocity, case))
        case.check(f"score|{path}|{prediction}", first_channel(predicted.score, case))
    for name, target, source, path in case.outputs(r"(noise|velocity)_from_(velocity|score)\|(\w+)"):
        case.check(name, first_channel(convert(noise, data, PATHS[path].at(t), source=source, target=target), case))


@each_case("sit_transport", only=("loss|",))
def test_losses_are_those_of_sit(case, backbone_of):
    (noise, data, t), toy = states_of(case), backbone_of(velocity_toy(case.config["toy"]))
    for name, path, prediction, theirs in case.outputs(r"loss\|(\w+)\|(\w+)\|(\w+)"):
        # SiT passes over the weighting of velocities, we refuse it
        weighting = "none" if prediction == "velocity" else theirs.lower()
        objective = flow_matching(interpolant=PATHS[path], prediction=prediction, weighting=weighting)
        case.check(name, objective.loss(toy, data, labels(data), step=0, t=t, noise=noise)[prediction])


@each_case("sit_transport", only=("interval|",))
def test_the_intervals_are_those_of_sit(case, backbone_of):
    for name, path, prediction in case.outputs(r"interval\|(\w+)\|(\w+)"):
        training = PATHS[path].interval(prediction, TRAINING_MARGINS.get(path, MARGIN))
        field = flow_matching(interpolant=PATHS[path], prediction=prediction).field(
            backbone_of(velocity_toy(case.config["toy"]))
        )
        rows = [training, field.interval(MARGIN)]
        for diffusion in ("sbdm", "sigma"):
            for size in (0.0, 0.04):  # the case's text
                last_step = "mean" if size else "none"
                settings = {
                    "rule": "euler_maruyama",
                    "diffusion": diffusion,
                    "last_step": last_step,
                    "dtype": "float32",
                }
                rows.append(
                    ReverseSDE(
                        **settings, num_steps=1, norm=1.0, last_step_size=size, shift=1.0, margin=MARGIN
                    ).interval(field)
                )
        if (
            path != "VP" and prediction == "velocity"
        ):  # SiT starts at t = 0, where the SBDM coefficient is infinite; we keep the margin
            assert rows[2][0] == rows[3][0] == MARGIN
            rows[2:4] = [(0.0, last) for _, last in rows[2:4]]
        case.check(name, torch.tensor(rows, dtype=torch.float64))


@each_case("lightning_loss")
def test_the_cosine_term_and_the_times_are_those_of_lightningdit(case, backbone_of):
    noise, data, t = states_of(case)
    toy = backbone_of(velocity_toy(case.config["toy"]))
    terms = flow_matching(cosine_weight=1.0).loss(toy, data, labels(data), step=0, t=t, noise=noise)
    case.check("mse", terms["velocity"])
    case.check("cos_loss", terms["cosine"])
    case.check("total_mean", sum(terms.values()).mean())
    for name, mean, std in case.outputs(r"t_logit_normal(?:_mu_([-\d.]+)_sigma_([\d.]+))?"):
        law = LogitNormal(mean=float(mean or 0), std=float(std or 1), shift=1.0, uniform_after=None)
        case.check(name, law.times(case.input("time_normal"), num_numbers=data[0].numel()).float())


@each_case("lightning_time_grid")
def test_the_grid_is_that_of_lightningdit(case):
    for name, shift in case.outputs(r"grid_shift([\d.]+)"):
        # its value for equal steps is 0
        grid = time_grid(0.0, 1.0, num_steps=case.config["num_steps"] - 1, shift=float(shift) or 1.0)
        case.check(name, grid.float())


@each_case("maetok_sit_loss")
def test_maetoks_times_and_losses_are_ours_with_the_time_turned(case, backbone_of):
    data, noise, toy = case.input("x1"), case.input("noise"), backbone_of(velocity_toy(case.config["toy"]))
    for name, path, weighting in case.outputs(r"([a-z]+)_([a-z]+)\.t"):
        interpolant = {"linear": Linear(), "cosine": GVP()}[path]
        law = NormalLogSNR(interpolant=interpolant, mean=0.0, std=1.0)
        assert weighting in ("uniform", "lognormal")
        t = 1 - case.input("time_uniform").double() if weighting == "uniform" else law.times(-case.input("time_normal"))
        case.check(name, (1 - t).float())
        case.check(f"{path}_{weighting}.x_t", interpolant.mix(noise, data, t))
        objective = flow_matching(interpolant=interpolant, times=law, network_time="noise_at_one")
        case.check(
            f"{path}_{weighting}.loss", objective.loss(toy, data, labels(data), step=0, t=t, noise=noise)["velocity"]
        )


@each_case("latent_normalisation")
def test_latents_are_normalized_as_in_lightningdit(case):
    latents = case.input("latents")
    z = tokens(latents)
    mean, std = (value.reshape(1, -1, 1, 1) for value in (z.mean(dim=(0, 1)), z.flatten(0, 1).std(dim=0)))
    case.check("mean", mean)
    case.check("std", std)
    normaliser = Normalizer.from_stats(mean, std, channels=latents.shape[1], multiplier=case.config["multiplier"])
    normalised = normaliser.normalize(z)
    case.check("normalised", maps(normalised, latents))
    case.check("restored", maps(normaliser.denormalize(normalised), latents))
