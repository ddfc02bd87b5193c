"""Tables, respacing, losses and chains of DDPM against the official DiT's diffusion."""

import pytest
import torch
from einops import rearrange

from ldbench.core.discrete_diffusion import DiscreteDiffusion, times_of
from ldbench.core.interpolants import Discrete
from ldbench.objectives.diffusion import Diffusion
from ldbench.objectives.times import Counted
from ldbench.sampling.ancestral import DDIM, Ancestral
from ldbench.sampling.respacing import kept

pytestmark = pytest.mark.parity

LINEAR = Discrete(schedule="linear", num_times=1000)
Y = torch.zeros(4, dtype=torch.long)


def tokens(maps):
    return rearrange(maps, "... c h w -> ... (h w) c")


def maps(z, side):
    return rearrange(z, "b (h w) c -> b c h w", h=side)


def chain_of(interpolant) -> DiscreteDiffusion:
    return DiscreteDiffusion(interpolant.at(times_of(torch.arange(1000), 1000)).alpha.square())


def diffusion(**changes) -> Diffusion:
    words = {"prediction": "noise", "variance": "learned_range", "loss": "mse"}
    return Diffusion(**{"interpolant": LINEAR, "times": Counted(interpolant=LINEAR), **words, **changes})


@pytest.fixture
def toy(backbone_of):
    def formula(x, t, y):
        s = 0.1 * torch.sin(0.01 * t)
        return torch.cat([0.3 * x + s, torch.tanh(x + s)], dim=-1)

    return backbone_of(formula, learned_variance=True)


def test_the_tables_are_the_official_ones(open_case):
    case, chain = open_case("ddpm_tables"), chain_of(LINEAR)
    case.check("betas", LINEAR.betas)
    case.check("betas", chain.betas)
    case.check("alphas_cumprod", chain.alphas_cumprod)
    case.check("alphas_cumprod_prev", chain.alphas_cumprod_prev)
    case.check("posterior_variance", chain.posterior_variance)
    case.check("posterior_log_variance_clipped", chain.posterior_logvar)
    case.check("posterior_mean_coef1", chain.of_data)
    case.check("posterior_mean_coef2", chain.of_x)
    c = LINEAR.at(times_of(torch.arange(1000), 1000))
    case.check("sqrt_recip_alphas_cumprod", 1 / c.alpha)
    case.check("sqrt_recipm1_alphas_cumprod", c.sigma / c.alpha)
    case.check("sqrt_alphas_cumprod", c.alpha)
    case.check("sqrt_one_minus_alphas_cumprod", c.sigma)


def test_the_cosine_tables_are_the_official_ones(open_case):
    case, interpolant = open_case("ddpm_tables_cosine"), Discrete(schedule="cosine", num_times=1000)
    case.check("betas", interpolant.betas)
    case.check("alphas_cumprod", chain_of(interpolant).alphas_cumprod)


@pytest.mark.parametrize("respacing", ["250", "100", "50", "10", "ddim50", "ddim25"])
def test_respaced_chains_are_the_official_ones(open_case, respacing):
    case = open_case("ddpm_respacing")
    indices = torch.tensor(kept(1000, respacing))
    chain = DiscreteDiffusion(chain_of(LINEAR).alphas_cumprod[indices])
    case.check(f"{respacing}.timestep_map", indices)
    case.check(f"{respacing}.betas", chain.betas)
    case.check(f"{respacing}.posterior_log_variance_clipped", chain.posterior_logvar)


def test_losses_are_the_official_ones(open_case, toy):
    case = open_case("ddpm_losses")
    z, noise, index = tokens(case.input("x_start")), tokens(case.input("noise")), case.input("t")

    def terms(**changes):
        return diffusion(**changes).loss(toy, z, Y, step=0, t=times_of(index, 1000), noise=noise)

    case.check("x_t", maps(LINEAR.mix(noise, z, times_of(index, 1000)), 8))
    case.check("mse", terms()["noise"])
    case.check("vb", terms()["bound"])
    case.check("loss", sum(terms().values()))
    case.check("loss_rescaled_mse", sum(terms(loss="rescaled_mse").values()))
    case.check("loss_rescaled_kl", sum(terms(loss="rescaled_kl").values()))
    case.check("loss_fixed_sigma", sum(terms(variance="fixed_large").values()))
    case.check("loss_predict_xstart", sum(terms(prediction="data").values()))
    assert all(torch.equal(t, index.float()) for t in toy.times), (
        "the network is told the original indices, as whole numbers"
    )


def test_the_gaussian_of_a_step_back_is_the_official_one(open_case, toy):
    case = open_case("ddpm_losses")
    x, index = tokens(case.input("x_start")), case.input("t").long()
    objective = diffusion()
    predicted = objective.field(toy)(x, times_of(index, 1000), Y)
    for suffix, data in (("", predicted.data), ("_clipped", predicted.data.clamp(-1, 1))):
        logvar = objective.chain.logvar(index, predicted.variance_share)
        case.check(f"p_pred_xstart{suffix}", maps(data, 8))
        case.check(f"p_mean{suffix}", maps(objective.chain.back(x, data, index), 8))
        case.check(f"p_log_variance{suffix}", maps(logvar, 8))
        case.check(f"p_variance{suffix}", maps(logvar.exp(), 8))


@pytest.mark.parametrize(("name", "respacing"), [("ddpm_sampling_50", "50"), ("ddpm_sampling_ddim25", "ddim25")])
def test_chains_are_the_official_ones(open_case, toy, name, respacing):
    case = open_case(name)
    z, increments = tokens(case.input("z")), tokens(case.input("increments"))
    field, y = diffusion().field(toy), Y[:2]
    words = {"respacing": respacing, "margin": 1e-3, "dtype": "float32"}
    states = list(Ancestral(clip=None, **words).states(field, z, y, increments=increments))
    case.check("ancestral", maps(states[-1], 6))
    case.check("ancestral_after_step_10", maps(states[10], 6))
    case.check("ancestral_clipped", maps(Ancestral(clip=1.0, **words)(field, z, y, increments=increments), 6))
    for eta in (0.0, 0.5, 1.0):
        case.check(f"ddim_eta{eta}", maps(DDIM(eta=eta, clip=None, **words)(field, z, y, increments=increments), 6))
    inverted = list(DDIM(eta=0.0, clip=None, **words).inversion(field, z, y))
    case.check("ddim_reverse_5_steps", maps(inverted[5], 6))
