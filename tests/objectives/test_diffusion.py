"""Diffusion: the perfect prediction has the least loss, the bound is a divergence, variances, counted times, and what is refused."""

import math

import pytest
import torch

from ldbench.core.discrete_diffusion import times_of_indices
from ldbench.core.interfaces import Objective
from ldbench.core.interpolants import Discrete, Linear
from ldbench.objectives.diffusion import Diffusion, discretised_nll
from ldbench.objectives.times import Counted, LogitNormal, Uniform

CHAINS = {schedule: Discrete(schedule=schedule, num_times=1000) for schedule in ("linear", "cosine")}
INDEX = torch.tensor([0, 50, 400, 900])
T = times_of_indices(INDEX, 1000)
Y = torch.zeros(4, dtype=torch.long)


def diffusion(**changes) -> Diffusion:
    words = {"prediction": "noise", "variance": "fixed_small", "loss": "mse"}
    return Diffusion(
        **{"interpolant": CHAINS["linear"], "times": Counted(interpolant=CHAINS["linear"]), **words, **changes}
    )


def perfect(gaussian, backbone_of, objective, off=0.0, share=0.3):
    """A backbone that says the best there is and `off` on top, and the same variance everywhere."""

    def formula(x, t, y):
        told = off + gaussian.told(objective.interpolant, objective.prediction, x, times_of_indices(t.flatten(), 1000))
        return torch.cat([told, torch.full_like(told, 2 * share - 1)], dim=-1) if objective.learned_variance else told

    return backbone_of(formula, learned_variance=objective.learned_variance)


def pairs(gaussian):
    rng = torch.Generator().manual_seed(0)
    z = gaussian.mean + gaussian.std * torch.randn(4, 4000, 2, generator=rng)
    return z, torch.randn(z.shape, generator=rng)


@pytest.mark.parametrize("schedule", CHAINS)
@pytest.mark.parametrize("prediction", ["noise", "data", "angular"])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large", "learned_range"])
@pytest.mark.parametrize("loss", ["mse", "rescaled_mse", "kl", "rescaled_kl"])
def test_the_perfect_prediction_has_the_least_loss(gaussian, backbone_of, schedule, prediction, variance, loss):
    objective = diffusion(interpolant=CHAINS[schedule], prediction=prediction, variance=variance, loss=loss)
    z, noise = pairs(gaussian)
    found = []
    for off in (-0.2, 0.0, 0.2):
        backbone = perfect(gaussian, backbone_of, objective, off)
        terms = objective.loss(
            backbone, z, Y, step=0, t=times_of_indices(INDEX.clamp(min=5), 1000), noise=noise
        )  # at 0 the outermost bins pull outwards
        found.append(sum(terms.values()))
        assert found[-1].dtype == torch.float32
    assert (found[1] < found[0]).all()
    assert (found[1] < found[2]).all()


@pytest.mark.parametrize("prediction", ["noise", "data", "angular"])
def test_its_field_tells_the_same_in_whichever_words(gaussian, backbone_of, prediction):
    objective = diffusion(prediction=prediction)
    x = torch.randn(4, 6, 2)
    told = objective.field(perfect(gaussian, backbone_of, objective))(x, T[[1, 1, 2, 2]], Y)
    for view in ("velocity", "score", "noise", "data"):
        torch.testing.assert_close(
            getattr(told, view), gaussian.told(objective.interpolant, view, x, T[[1, 1, 2, 2]]), rtol=2e-3, atol=2e-3
        )


def test_the_bound_of_a_perfect_step_is_the_divergence_of_two_normals_in_bits(backbone_of):
    """Both normals have the posterior's variance and means apart by what the noise is wrong: half its square over the variance."""
    objective = diffusion(loss="kl")
    z, noise = torch.randn(4, 5, 2), torch.randn(4, 5, 2)
    found = objective.loss(backbone_of(lambda x, t, y: noise + 0.1), z, Y, step=0, t=T, noise=noise)["bound"]
    c, chain = objective.interpolant.at(T), objective.chain
    apart = chain.data_coefficient[INDEX] * c.sigma / c.alpha * 0.1
    nats = 0.5 * apart.square() / chain.posterior_variance[INDEX]
    torch.testing.assert_close(found[1:].double(), nats[1:] / math.log(2), rtol=1e-3, atol=1e-6)
    whole = diffusion(loss="rescaled_kl").loss(
        backbone_of(lambda x, t, y: noise + 0.1), z, Y, step=0, t=T, noise=noise
    )["bound"]
    torch.testing.assert_close(whole, 1000 * found)


def test_the_bins_of_a_discretised_normal_hold_all_of_it():
    levels = torch.linspace(-1, 1, 256, dtype=torch.float64).reshape(1, -1, 1)
    nll = discretised_nll(levels, torch.full_like(levels, 0.3), torch.full_like(levels, -1.5))
    assert float((-nll).exp().sum()) == pytest.approx(1.0, abs=1e-9)


def test_a_learned_variance_leaves_the_prediction_to_the_squared_error(backbone_of):
    weight = torch.nn.Parameter(torch.tensor(0.5))
    backbone = backbone_of(lambda x, t, y: torch.cat([weight * x, 0.1 * x], dim=-1), learned_variance=True)
    terms = diffusion(variance="learned_range").loss(backbone, torch.randn(4, 3, 2), Y, step=0)
    assert set(terms) == {"noise", "bound"}
    assert torch.autograd.grad(terms["bound"].sum(), weight, retain_graph=True)[0] == 0
    assert torch.autograd.grad(terms["noise"].sum(), weight)[0] != 0


def test_the_variance_of_a_step_is_told_to_samplers(backbone_of):
    x = torch.randn(4, 3, 2)
    plain = backbone_of(lambda x, t, y: x)
    doubled = backbone_of(lambda x, t, y: torch.cat([x, torch.ones_like(x)], dim=-1), learned_variance=True)
    assert (diffusion().field(plain)(x, T, Y).variance_fraction == 0).all()
    assert diffusion(variance="fixed_large").field(plain)(x, T, Y).variance_fraction.flatten().tolist() == [0, 1, 1, 1]
    assert (diffusion(variance="learned_range").field(doubled)(x, T, Y).variance_fraction == 1).all()
    assert torch.equal(diffusion().field(doubled)(x, T, Y).value, x), "a variance that is not asked for is left out"


@pytest.mark.parametrize(
    "law",
    [Uniform(), LogitNormal(mean=0.0, std=1.0, shift=1.0, uniform_after=None), Counted(interpolant=CHAINS["linear"])],
)
def test_times_of_any_law_reach_the_network_as_whole_indices(backbone_of, law):
    backbone = backbone_of(lambda x, t, y: x)
    diffusion(times=law).loss(backbone, torch.randn(256, 2, 1), torch.zeros(256), step=0)
    told = backbone.times[0]
    assert told.dtype == torch.float32
    assert torch.equal(told, told.round())
    assert 0 <= float(told.min()) < float(told.max()) <= 999


def test_what_does_not_go_together_is_refused_with_what_to_change(backbone_of):
    assert isinstance(diffusion(), Objective)
    assert diffusion(variance="learned_range").learned_variance
    for changes, told in (
        ({"prediction": "velocity"}, "Choose one of noise, data, angular"),
        ({"variance": "large"}, "Choose one of fixed_small, fixed_large, learned_range"),
        ({"loss": "l1"}, "Choose one of mse, rescaled_mse, kl, rescaled_kl"),
        (
            {"interpolant": Linear()},
            r"Linear is continuous\. Choose interpolant=discrete_linear or discrete_cosine, or objective=flow_matching",
        ),
    ):
        with pytest.raises(ValueError, match=told):
            diffusion(**changes)
    with pytest.raises(
        ValueError, match=r"needs a backbone with 2 C outputs, and this one has C\. Choose variance=fixed_small"
    ):
        diffusion(variance="learned_range").field(backbone_of(lambda x, t, y: x))
