"""Tables, respacing, losses and samples of DDPM against the official DiT's diffusion."""

import pytest
import torch
from tests.parity.cases import Case, each_case
from tests.parity.layout import maps, tokens
from tests.parity.toys import variance_toy

from ldbench.core.discrete_diffusion import DiscreteDiffusion, times_of_indices
from ldbench.core.interpolants import Discrete
from ldbench.objectives.diffusion import Diffusion
from ldbench.objectives.times import Counted
from ldbench.sampling.ancestral import DDIM, Ancestral
from ldbench.sampling.respacing import kept_indices

pytestmark = pytest.mark.parity


def interpolant_of(case: Case) -> Discrete:
    schedule = case.config["schedule"].split()[0]  # "cosine (max beta 0.999)"
    return Discrete(schedule=schedule, num_times=case.config["steps"])


def diffusion_of(interpolant: Discrete) -> DiscreteDiffusion:
    steps = interpolant.num_times
    return DiscreteDiffusion(interpolant.at(times_of_indices(torch.arange(steps), steps)).alpha.square())


def diffusion(interpolant: Discrete, **changes) -> Diffusion:
    settings = {"prediction": "noise", "variance": "learned_range", "loss": "mse"}
    return Diffusion(**{"interpolant": interpolant, "times": Counted(interpolant=interpolant), **settings, **changes})


@each_case("ddpm_tables")
def test_the_tables_are_the_official_ones(case):
    interpolant, steps = interpolant_of(case), case.config["steps"]
    discrete, c = diffusion_of(interpolant), interpolant.at(times_of_indices(torch.arange(steps), steps))
    tables = {
        "betas": discrete.betas,
        "alphas_cumprod": discrete.alphas_cumprod,
        "alphas_cumprod_prev": discrete.alphas_cumprod_prev,
        "posterior_variance": discrete.posterior_variance,
        "posterior_log_variance_clipped": discrete.posterior_logvar,
        "posterior_mean_coef1": discrete.data_coefficient,
        "posterior_mean_coef2": discrete.x_coefficient,
        "sqrt_recip_alphas_cumprod": 1 / c.alpha,
        "sqrt_recipm1_alphas_cumprod": c.sigma / c.alpha,
        "sqrt_alphas_cumprod": c.alpha,
        "sqrt_one_minus_alphas_cumprod": c.sigma,
    }
    case.check("betas", interpolant.betas)
    for (name,) in case.outputs(".+"):
        case.check(name, tables[name])


@each_case("ddpm_respacing")
def test_respaced_diffusions_are_the_official_ones(case):
    whole = diffusion_of(interpolant_of(case))
    for name, respacing in case.outputs(r"(.+)\.timestep_map"):
        indices = torch.tensor(kept_indices(case.config["steps"], respacing))
        discrete = DiscreteDiffusion(whole.alphas_cumprod[indices])
        case.check(name, indices)
        case.check(f"{respacing}.betas", discrete.betas)
        case.check(f"{respacing}.posterior_log_variance_clipped", discrete.posterior_logvar)


@each_case("ddpm_losses", besides=("p_",))
def test_losses_are_the_official_ones(case, backbone_of):
    interpolant, toy = interpolant_of(case), backbone_of(variance_toy(case.config["toy"]), learned_variance=True)
    data, noise, index = tokens(case.input("x_start")), tokens(case.input("noise")), case.input("t")
    t = times_of_indices(index, interpolant.num_times)

    def terms(**changes):
        return diffusion(interpolant, **changes).loss(toy, data, torch.zeros_like(index), step=0, t=t, noise=noise)

    case.check("x_t", maps(interpolant.mix(noise, data, t), case.input("x_start")))
    case.check("mse", terms()["noise"])
    case.check("vb", terms()["bound"])
    case.check("loss", sum(terms().values()))
    case.check("loss_rescaled_mse", sum(terms(loss="rescaled_mse").values()))
    case.check("loss_rescaled_kl", sum(terms(loss="rescaled_kl").values()))
    case.check("loss_fixed_sigma", sum(terms(variance="fixed_large").values()))
    case.check("loss_predict_xstart", sum(terms(prediction="data").values()))
    assert all(torch.equal(t, index.float()) for t in toy.times), (
        "the network gets the original indices, as whole numbers"
    )


@each_case("ddpm_losses", only=("p_",))
def test_the_gaussian_of_a_reverse_step_is_the_official_one(case, backbone_of):
    toy = backbone_of(variance_toy(case.config["toy"]), learned_variance=True)
    x, index = tokens(case.input("x_start")), case.input("t").long()
    objective = diffusion(interpolant_of(case))
    predicted = objective.field(toy)(x, times_of_indices(index, case.config["steps"]), torch.zeros_like(index))
    for suffix, data in (("", predicted.data), ("_clipped", predicted.data.clamp(-1, 1))):
        logvar = objective.diffusion.logvar(index, predicted.variance_fraction)
        values = {
            "pred_xstart": data,
            "mean": objective.diffusion.posterior_mean(x, data, index),
            "log_variance": logvar,
            "variance": logvar.exp(),
        }
        for name, value in values.items():
            case.check(f"p_{name}{suffix}", maps(value, case.input("x_start")))


@each_case("ddpm_sampling")
def test_samples_are_the_official_ones(case, backbone_of):
    toy = backbone_of(variance_toy(case.config["toy"]), learned_variance=True)
    start = case.input("z")
    z, increments = tokens(start), tokens(case.input("increments"))
    field, y = diffusion(interpolant_of(case)).field(toy), torch.zeros(len(z), dtype=torch.long)
    settings = {"respacing": case.config["respacing"], "margin": 1e-3, "dtype": "float32"}
    states = list(Ancestral(clip=None, **settings).states(field, z, y, increments=increments))
    case.check("ancestral", maps(states[-1], start))
    for name, step in case.outputs(r"ancestral_after_step_(\d+)"):
        case.check(name, maps(states[int(step)], start))
    case.check("ancestral_clipped", maps(Ancestral(clip=1.0, **settings)(field, z, y, increments=increments), start))
    for name, eta in case.outputs(r"ddim_eta(.+)"):
        case.check(name, maps(DDIM(eta=float(eta), clip=None, **settings)(field, z, y, increments=increments), start))
    inverted = list(DDIM(eta=0.0, clip=None, **settings).inversion(field, z, y))
    for name, steps in case.outputs(r"ddim_reverse_(\d+)_steps"):
        case.check(name, maps(inverted[int(steps)], start))
