"""Flow matching: the perfect prediction has the lowest loss, weightings, the cosine, time conventions, and errors."""

import pytest
import torch

from ldbench.core.interfaces import Objective
from ldbench.core.interpolants import GVP, VP, Discrete, Linear
from ldbench.objectives.flow_matching import FlowMatching
from ldbench.objectives.times import LogitNormal, Uniform

INTERPOLANTS = {"linear": Linear(), "gvp": GVP(), "vp": VP(beta_min=0.1, beta_max=20.0)}
COMBINATIONS = [
    (name, prediction, weighting)
    for name, interpolant in INTERPOLANTS.items()
    for prediction in ("velocity", "noise", "data", "score", "angular")
    for weighting in ("none", "velocity", "likelihood")
    if not (prediction == "velocity" and weighting != "none")
    and not (prediction == "angular" and not interpolant.variance_preserving)
]
Y = torch.zeros(4, dtype=torch.long)


def flow_matching(**changes) -> FlowMatching:
    names = {"prediction": "velocity", "weighting": "none", "network_time": "data_at_one"}
    return FlowMatching(
        **{**names, "interpolant": Linear(), "times": Uniform(), "cosine_weight": 0.0, "margin": 1e-3, **changes}
    )


def perfect(gaussian, backbone_of, objective, off=0.0):
    """A backbone with the best prediction plus `off`, in the network's own time."""

    def formula(x, t, y):
        time = objective.network_time
        ours = (t.flatten() - time.start) / time.direction
        value = gaussian.predict(objective.interpolant, objective.prediction, x, ours)
        return off + (time.velocity(value) if objective.prediction == "velocity" else value)

    return backbone_of(formula)


@pytest.mark.parametrize(("name", "prediction", "weighting"), COMBINATIONS)
def test_the_perfect_prediction_has_the_least_loss(gaussian, backbone_of, name, prediction, weighting):
    objective = flow_matching(interpolant=INTERPOLANTS[name], prediction=prediction, weighting=weighting)
    rng = torch.Generator().manual_seed(0)
    z = gaussian.mean + gaussian.std * torch.randn(4, 5000, 2, generator=rng)
    noise, t = torch.randn(z.shape, generator=rng), torch.tensor([0.1, 0.3, 0.6, 0.9])
    losses = []
    for off in (-0.1, 0.0, 0.1):
        terms = objective.loss(perfect(gaussian, backbone_of, objective, off), z, Y, step=0, t=t, noise=noise)
        assert set(terms) == {prediction}
        assert terms[prediction].dtype == torch.float32
        losses.append(terms[prediction])
    assert (losses[1] < losses[0]).all()
    assert (losses[1] < losses[2]).all()


@pytest.mark.parametrize("network_time", ["data_at_one", "noise_at_one"])
@pytest.mark.parametrize(("name", "prediction"), sorted({(name, prediction) for name, prediction, _ in COMBINATIONS}))
def test_its_field_is_the_networks_prediction_in_our_time(gaussian, backbone_of, name, prediction, network_time):
    objective = flow_matching(interpolant=INTERPOLANTS[name], prediction=prediction, network_time=network_time)
    field = objective.field(perfect(gaussian, backbone_of, objective))
    x, t = torch.randn(4, 6, 2), torch.tensor([0.1, 0.4, 0.7, 0.9])
    predicted = field(x, t, Y)
    for view in ("velocity", "score", "noise", "data"):
        torch.testing.assert_close(
            getattr(predicted, view), gaussian.predict(objective.interpolant, view, x, t), rtol=2e-4, atol=2e-4
        )


def test_a_network_whose_noise_is_at_one_sees_its_own_time_and_points_to_the_noise(backbone_of):
    backbone = backbone_of(lambda x, t, y: torch.ones_like(x))
    predicted = flow_matching(network_time="noise_at_one").field(backbone)(
        torch.zeros(2, 3, 1), torch.tensor([0.25, 1.0]), Y[:2]
    )
    assert backbone.times[0].tolist() == [0.75, 0.0]
    assert backbone.times[0].dtype == torch.float32
    assert (predicted.velocity == -1).all()


def test_a_weighted_error_is_that_of_the_velocity_or_of_the_bound(backbone_of):
    z, noise, t = torch.randn(4, 6, 2), torch.randn(4, 6, 2), torch.tensor([0.1, 0.4, 0.7, 0.9])
    off = backbone_of(lambda x, t, y: torch.zeros_like(x))
    velocity = flow_matching(prediction="noise", weighting="velocity", interpolant=GVP())
    predicted = velocity.field(off)(GVP().mix(noise, z, t), t, Y)
    error = (predicted.velocity - GVP().between(noise, z, t)[1]).square().mean(dim=(1, 2))
    torch.testing.assert_close(velocity.loss(off, z, Y, step=0, t=t, noise=noise)["noise"], error, rtol=1e-4, atol=1e-5)
    terms = [
        flow_matching(prediction=kind, weighting="likelihood").loss(
            perfect_noise(kind, off, z, noise), z, Y, step=0, t=t, noise=noise
        )
        for kind in ("noise", "data")
    ]
    torch.testing.assert_close(terms[0]["noise"], terms[1]["data"], rtol=1e-4, atol=1e-4)


def perfect_noise(kind, off, z, noise):
    """A backbone whose noise is 0 everywhere, as a prediction of a kind on Linear."""
    if kind == "noise":
        return off
    return type(off)(lambda x, t, y: x / t)


def test_the_cosine_term_depends_only_on_directions_and_is_weighted(backbone_of):
    z, noise, t = torch.randn(3, 6, 8), torch.randn(3, 6, 8), torch.tensor([0.1, 0.5, 0.9])
    for factor, expected in ((3.0, 0.0), (-1.0, 2.0)):
        backbone = backbone_of(lambda x, t, y, factor=factor: factor * (z - noise))
        terms = flow_matching(cosine_weight=0.5).loss(backbone, z, Y[:3], step=0, t=t, noise=noise)
        torch.testing.assert_close(terms["cosine"], torch.full((3,), 0.5 * expected), atol=1e-6, rtol=1e-6)
    assert set(terms) == {"velocity", "cosine"}


def test_times_and_noise_are_drawn_from_the_seed_where_targets_are_finite(backbone_of):
    backbone = backbone_of(lambda x, t, y: x)
    objective = flow_matching(
        prediction="score", margin=0.2, times=LogitNormal(mean=0.0, std=9.0, shift=1.0, uniform_after=None)
    )
    z = torch.randn(64, 3, 2)
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(objective.loss(backbone, z, torch.zeros(64), step=0)["score"])
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])
    assert float(backbone.times[0].min()) == pytest.approx(0.2, abs=1e-3)
    assert float(backbone.times[0].max()) == pytest.approx(0.8, abs=1e-3)


def test_a_learned_variance_is_ignored_and_half_precision_losses_are_float32(backbone_of):
    z, noise, t = torch.randn(2, 3, 4).bfloat16(), torch.randn(2, 3, 4), torch.tensor([0.2, 0.8])
    plain = backbone_of(lambda x, t, y: 0.3 * x)
    doubled = backbone_of(lambda x, t, y: torch.cat([0.3 * x, 9 * x], dim=-1), learned_variance=True)
    terms = [flow_matching().loss(each, z, Y[:2], step=0, t=t, noise=noise)["velocity"] for each in (plain, doubled)]
    assert torch.equal(*terms)
    assert terms[0].dtype == torch.float32
    half = backbone_of(lambda x, t, y: (0.3 * x).bfloat16())
    assert flow_matching().field(half)(z.double(), t, Y[:2]).value.dtype == torch.float64, (
        "fields have the precision of the state"
    )


def test_gradients_reach_the_network():
    network = torch.nn.Linear(2, 2)

    class Backbone(torch.nn.Module):
        null_class, learned_variance = None, False

        def forward(self, x, t, y):
            return network(x)

    terms = flow_matching(cosine_weight=1.0).loss(Backbone(), torch.randn(4, 3, 2), Y, step=0)
    sum(terms.values()).mean().backward()
    assert network.weight.grad.abs().sum() > 0


def test_incompatible_settings_are_refused_with_what_to_change():
    assert isinstance(flow_matching(), Objective)
    for changes, message in (
        ({"prediction": "epsilon"}, "Choose one of velocity, score, noise, data, angular"),
        ({"weighting": "snr"}, "Choose one of none, velocity, likelihood"),
        ({"network_time": "backwards"}, "Choose one of data_at_one, noise_at_one"),
        (
            {"interpolant": Discrete(schedule="linear", num_times=1000)},
            r"1000 discrete timesteps\. Choose interpolant=linear, gvp or vp, or objective=diff",
        ),
        (
            {"prediction": "angular"},
            r"needs a variance-preserving interpolant, but this is Linear\. Choose interpolant=gvp or vp",
        ),
        ({"weighting": "velocity"}, "Choose weighting=none, or prediction=noise"),
        ({"prediction": "noise", "cosine_weight": 1.0}, "Choose cosine_weight=0, or prediction=velocity"),
        ({"margin": 0.0}, "0 < margin < 0.5"),
        ({"cosine_weight": -1.0}, "cosine_weight >= 0"),
    ):
        with pytest.raises(ValueError, match=message):
            flow_matching(**changes)


def test_a_bound_holds_for_the_factor_from_the_data_to_the_velocity(backbone_of):
    z, noise, t = torch.randn(4, 6, 2), torch.randn(4, 6, 2), torch.tensor([0.1, 0.5, 0.95, 0.99])
    off = backbone_of(lambda x, t, y: torch.zeros_like(x))
    error = z.square().mean(dim=(1, 2))
    settings = {"prediction": "data", "weighting": "velocity"}
    found = flow_matching(**settings, max_velocity_factor=20.0).loss(off, z, Y, step=0, t=t, noise=noise)["data"]
    torch.testing.assert_close(found, error / torch.tensor([0.9, 0.5, 0.05, 0.05]).square())
    # which is the error of the velocities that are sampled
    x = Linear().mix(noise, z, t)
    field = flow_matching(**settings, max_velocity_factor=20.0).field(off)
    right = field(x, t, Y).with_value(z)
    velocities = (field(x, t, Y).velocity - right.velocity).square().mean(dim=(1, 2))
    torch.testing.assert_close(found, velocities, rtol=1e-4, atol=1e-4)
    exact = flow_matching(**settings).loss(off, z, Y, step=0, t=t, noise=noise)["data"]
    torch.testing.assert_close(exact, error / (1 - t).square(), rtol=1e-4, atol=1e-4)
    for changes in ({"max_velocity_factor": 1.0}, {"max_velocity_factor": 20.0, "weighting": "none"}):
        with pytest.raises(ValueError, match="max_velocity_factor must be above 1, and is of weighting=velocity"):
            flow_matching(**{**settings, **changes})
