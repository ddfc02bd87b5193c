"""Diffusion: the perfect prediction has the lowest loss, the bound is a divergence, variances, times, and errors."""

import math

import pytest
import torch

from ldbench.core.discrete_diffusion import times_of_indices
from ldbench.core.interfaces import Objective
from ldbench.core.interpolants import Discrete, Linear
from ldbench.objectives.diffusion import Diffusion, discretized_nll
from ldbench.objectives.times import Counted, LogitNormal, Uniform

INTERPOLANTS = {schedule: Discrete(schedule=schedule, num_times=1000) for schedule in ("linear", "cosine")}
INDEX = torch.tensor([0, 50, 400, 900])
T = times_of_indices(INDEX, 1000)
Y = torch.zeros(4, dtype=torch.long)


def diffusion(**changes) -> Diffusion:
    names = {"prediction": "noise", "variance": "fixed_small", "loss": "mse"}
    return Diffusion(
        **{
            "interpolant": INTERPOLANTS["linear"],
            "times": Counted(interpolant=INTERPOLANTS["linear"]),
            **names,
            **changes,
        }
    )


def perfect(gaussian, backbone_of, objective, off=0.0, fraction=0.3):
    """A backbone with the best prediction plus `off`, and the same variance everywhere."""

    def formula(x, t, y):
        t = times_of_indices(t.flatten(), 1000)
        value = off + gaussian.predict(objective.interpolant, objective.prediction, x, t)
        if not objective.learned_variance:
            return value
        return torch.cat([value, torch.full_like(value, 2 * fraction - 1)], dim=-1)

    return backbone_of(formula, learned_variance=objective.learned_variance)


def pairs(gaussian):
    rng = torch.Generator().manual_seed(0)
    z = gaussian.mean + gaussian.std * torch.randn(4, 4000, 2, generator=rng)
    return z, torch.randn(z.shape, generator=rng)


@pytest.mark.parametrize("schedule", INTERPOLANTS)
@pytest.mark.parametrize("prediction", ["noise", "data", "angular"])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large", "learned_range"])
@pytest.mark.parametrize("loss", ["mse", "rescaled_mse", "kl", "rescaled_kl"])
def test_the_perfect_prediction_has_the_least_loss(gaussian, backbone_of, schedule, prediction, variance, loss):
    objective = diffusion(interpolant=INTERPOLANTS[schedule], prediction=prediction, variance=variance, loss=loss)
    z, noise = pairs(gaussian)
    losses = []
    for off in (-0.2, 0.0, 0.2):
        backbone = perfect(gaussian, backbone_of, objective, off)
        # at 0 the outermost bins favor larger values
        terms = objective.loss(backbone, z, Y, step=0, t=times_of_indices(INDEX.clamp(min=5), 1000), noise=noise)
        losses.append(sum(terms.values()))
        assert losses[-1].dtype == torch.float32
    assert (losses[1] < losses[0]).all()
    assert (losses[1] < losses[2]).all()


@pytest.mark.parametrize("prediction", ["noise", "data", "angular"])
def test_its_field_is_the_same_for_all_kinds_of_predictions(gaussian, backbone_of, prediction):
    objective = diffusion(prediction=prediction)
    x = torch.randn(4, 6, 2)
    predicted = objective.field(perfect(gaussian, backbone_of, objective))(x, T[[1, 1, 2, 2]], Y)
    for view in ("velocity", "score", "noise", "data"):
        torch.testing.assert_close(
            getattr(predicted, view),
            gaussian.predict(objective.interpolant, view, x, T[[1, 1, 2, 2]]),
            rtol=2e-3,
            atol=2e-3,
        )


def test_the_bound_of_a_perfect_step_is_the_divergence_of_two_normals_in_bits(backbone_of):
    """Both normals have the posterior's variance; the divergence is half the squared difference of means over it."""
    objective = diffusion(loss="kl")
    z, noise = torch.randn(4, 5, 2), torch.randn(4, 5, 2)
    bound = objective.loss(backbone_of(lambda x, t, y: noise + 0.1), z, Y, step=0, t=T, noise=noise)["bound"]
    c, discrete = objective.interpolant.at(T), objective.diffusion
    difference = discrete.data_coefficient[INDEX] * c.sigma / c.alpha * 0.1
    nats = 0.5 * difference.square() / discrete.posterior_variance[INDEX]
    torch.testing.assert_close(bound[1:].double(), nats[1:] / math.log(2), rtol=1e-3, atol=1e-6)
    whole = diffusion(loss="rescaled_kl").loss(
        backbone_of(lambda x, t, y: noise + 0.1), z, Y, step=0, t=T, noise=noise
    )["bound"]
    torch.testing.assert_close(whole, 1000 * bound)


def test_the_bins_of_a_discretized_normal_add_up_to_one():
    levels = torch.linspace(-1, 1, 256, dtype=torch.float64).reshape(1, -1, 1)
    nll = discretized_nll(levels, torch.full_like(levels, 0.3), torch.full_like(levels, -1.5))
    assert float((-nll).exp().sum()) == pytest.approx(1.0, abs=1e-9)


def test_a_learned_variance_leaves_the_prediction_to_the_squared_error(backbone_of):
    weight = torch.nn.Parameter(torch.tensor(0.5))
    backbone = backbone_of(lambda x, t, y: torch.cat([weight * x, 0.1 * x], dim=-1), learned_variance=True)
    terms = diffusion(variance="learned_range").loss(backbone, torch.randn(4, 3, 2), Y, step=0)
    assert set(terms) == {"noise", "bound"}
    assert torch.autograd.grad(terms["bound"].sum(), weight, retain_graph=True)[0] == 0
    assert torch.autograd.grad(terms["noise"].sum(), weight)[0] != 0


def test_predictions_hold_the_variance_of_a_step(backbone_of):
    x = torch.randn(4, 3, 2)
    plain = backbone_of(lambda x, t, y: x)
    doubled = backbone_of(lambda x, t, y: torch.cat([x, torch.ones_like(x)], dim=-1), learned_variance=True)
    assert (diffusion().field(plain)(x, T, Y).variance_fraction == 0).all()
    assert diffusion(variance="fixed_large").field(plain)(x, T, Y).variance_fraction.flatten().tolist() == [0, 1, 1, 1]
    assert (diffusion(variance="learned_range").field(doubled)(x, T, Y).variance_fraction == 1).all()
    assert torch.equal(diffusion().field(doubled)(x, T, Y).value, x), "an unused variance output is ignored"


@pytest.mark.parametrize(
    "times",
    [
        Uniform(),
        LogitNormal(mean=0.0, std=1.0, shift=1.0, uniform_after=None),
        Counted(interpolant=INTERPOLANTS["linear"]),
    ],
)
def test_times_of_any_distribution_reach_the_network_as_integer_indices(backbone_of, times):
    backbone = backbone_of(lambda x, t, y: x)
    diffusion(times=times).loss(backbone, torch.randn(256, 2, 1), torch.zeros(256), step=0)
    index = backbone.times[0]
    assert index.dtype == torch.float32
    assert torch.equal(index, index.round())
    assert 0 <= float(index.min()) < float(index.max()) <= 999


def test_incompatible_settings_are_refused_with_what_to_change(backbone_of):
    assert isinstance(diffusion(), Objective)
    assert diffusion(variance="learned_range").learned_variance
    for changes, message in (
        ({"prediction": "velocity"}, "Choose one of noise, data, angular"),
        ({"variance": "large"}, "Choose one of fixed_small, fixed_large, learned_range"),
        ({"loss": "l1"}, "Choose one of mse, rescaled_mse, kl, rescaled_kl"),
        (
            {"interpolant": Linear()},
            r"Linear is continuous\. Choose interpolant=discrete_linear or discrete_cosine, or objective=flow_matching",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            diffusion(**changes)
    with pytest.raises(
        ValueError, match=r"needs a backbone with 2 C outputs, and this one has C\. Choose variance=fixed_small"
    ):
        diffusion(variance="learned_range").field(backbone_of(lambda x, t, y: x))
