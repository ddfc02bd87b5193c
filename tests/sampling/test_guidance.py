"""Guidance: its formula for all kinds of predictions, channels, interval, counts of calls and items, and errors."""

from dataclasses import replace

import pytest
import torch

from ldbench.core.field import Field, Prediction
from ldbench.core.interfaces import Guidance
from ldbench.core.interpolants import GVP, VP, Linear
from ldbench.sampling.guidance import Autoguidance, ClassifierFree, Unguided
from ldbench.sampling.noise import NoiseStream
from ldbench.sampling.ode import FixedGrid
from ldbench.sampling.sde import ReverseSDE

NULL = 10
Y = torch.tensor([3, 7])
T = torch.tensor([0.3, 0.3], dtype=torch.float64)


def field_of(kind="velocity", interpolant=None, null_class=NULL, share=False, weight=0.1) -> Field:
    """A field that depends on its label."""
    interpolant = interpolant or Linear()

    def predict(x, t, y):
        variance_fraction = 0.05 * y[:, None, None] * torch.ones_like(x) if share else None
        return Prediction(0.4 * x + weight * y[:, None, None], kind, x, t, interpolant, variance_fraction)

    return Field(predict, interpolant=interpolant, prediction=kind, null_class=null_class)


def cfg(**changes) -> ClassifierFree:
    return ClassifierFree(**{"scale": 2.5, "low": 0.0, "high": 1.0, "channels": None, "batched": True, **changes})


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("kind", ["velocity", "noise", "data", "score"])
def test_the_guided_field_is_the_formula_for_all_kinds(kind, batched):
    x, plain = torch.randn(2, 4, 5), field_of(kind, GVP())
    guided = cfg(batched=batched)(field_of(kind, GVP()))(x, T, Y)
    for view in ("velocity", "score", "noise", "data"):
        conditional, free = (getattr(plain(x, T, labels), view) for labels in (Y, torch.full_like(Y, NULL)))
        torch.testing.assert_close(getattr(guided, view), free + 2.5 * (conditional - free), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batched", [True, False])
def test_only_the_first_channels_are_guided_if_set(batched):
    x = torch.randn(2, 4, 5)
    guided, whole, plain = (
        field(x, T, Y).value for field in (cfg(channels=3, batched=batched)(field_of()), cfg()(field_of()), field_of())
    )
    assert torch.equal(guided[..., 3:], plain[..., 3:])
    torch.testing.assert_close(guided[..., :3], whole[..., :3])


@pytest.mark.parametrize("batched", [True, False])
def test_outside_of_the_interval_it_is_the_conditional_field_item_by_item(batched):
    x, y = torch.randn(4, 3, 2), torch.tensor([1, 2, 3, 4])
    t = torch.tensor([0.1, 0.2, 0.6, 0.9], dtype=torch.float64)
    base = field_of()
    guided = cfg(low=0.2, high=0.6, batched=batched)(base)(x, t, y)
    assert (base.calls, base.items) == ((1, 6) if batched else (2, 6)), "unconditional for the two inside alone"
    plain, whole = field_of()(x, t, y).value, cfg()(field_of())(x, t, y).value
    assert torch.equal(guided.value[[0, 3]], plain[[0, 3]])
    torch.testing.assert_close(guided.value[[1, 2]], whole[[1, 2]])
    assert guided.x is x
    assert guided.t is t


def test_a_learned_variance_stays_conditional():
    guided = cfg()(field_of(share=True))(torch.randn(2, 3, 2), T, Y)
    torch.testing.assert_close(guided.variance_fraction[:, 0, 0], 0.05 * Y)


@pytest.mark.parametrize("low", [0.0, 0.25, 1.0])
def test_the_calls_of_250_euler_steps_are_counted_exactly(low):
    noise = torch.randn(2, 3, 2)
    sampler = FixedGrid(rule="euler", num_steps=250, shift=1.0, margin=1e-3, last_step="tweedie", dtype="float32")
    inside = sum(i / 250 >= low for i in range(250))
    for batched in (True, False):
        field = field_of()
        sampler(cfg(low=low, batched=batched)(field), noise, Y)
        assert field.items == 2 * (250 + inside)
        assert field.calls == 250 + (0 if batched else inside)


def test_noisy_steps_make_one_call_per_drift():
    settings = {"rule": "euler_maruyama", "diffusion": "sigma", "last_step": "mean", "dtype": "float32"}
    sampler = ReverseSDE(**settings, num_steps=249, norm=1.0, last_step_size=0.04, shift=1.0, margin=1e-3)
    stream = NoiseStream(0, range(2))
    for guidance, items in ((Unguided(), 2 * 250), (cfg(), 4 * 250)):
        field = guidance(field_of())
        sampler(field, stream.normal(0, (2, 3, 2)), Y, stream=stream)
        assert (field.calls, field.items) == (250, items)


def test_no_guidance_and_scale_one_cost_nothing():
    field = field_of()
    assert Unguided()(field) is field
    assert cfg(scale=1.0)(field) is field
    assert isinstance(cfg(), Guidance)


@pytest.mark.parametrize("kind", ["velocity", "noise"])
def test_autoguidance_extrapolates_from_a_weaker_network_with_the_same_labels(kind):
    x, strong, weak = (
        torch.randn(2, 4, 5),
        field_of("velocity", GVP(), null_class=None),
        field_of(kind, GVP(), weight=0.03),
    )
    guided = Autoguidance(scale=1.7, low=0.0, high=1.0, guide=weak)(strong)
    velocity = guided(x, T, Y).velocity
    assert (guided.calls, guided.items) == (2, 4)
    expected = weak(x, T, Y).velocity + 1.7 * (strong(x, T, Y).velocity - weak(x, T, Y).velocity)
    torch.testing.assert_close(velocity, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["noise", "data", "score"])
@pytest.mark.parametrize("rule", ["euler", "heun"])
def test_a_guide_of_another_kind_leaves_samples_finite_to_the_ends(kind, rule):
    settings = {"num_steps": 4, "shift": 1.0, "margin": 1e-3, "last_step": "none", "dtype": "float64"}
    guided = Autoguidance(scale=1.5, low=0.0, high=1.0, guide=field_of(kind))(field_of("velocity"))
    noise = torch.randn(2, 3, 2)
    assert FixedGrid(rule=rule, **settings)(guided, noise, Y).isfinite().all()
    ours, theirs = field_of("velocity").interval(1e-3), field_of(kind).interval(1e-3)
    assert guided.interval(1e-3) == (max(ours[0], theirs[0]), min(ours[1], theirs[1]))


def test_a_guide_guides_by_the_velocities_that_it_is_sampled_by():
    x, t = torch.randn(2, 3, 2), torch.tensor([0.5, 0.999], dtype=torch.float64)
    strong, weak = field_of("velocity"), field_of("data")
    free = weak.predict
    weak.predict = lambda *at: replace(free(*at), max_velocity_factor=20.0)
    guided = Autoguidance(scale=2.0, low=0.0, high=1.0, guide=weak)(strong)
    expected = 2 * strong(x, t, Y).velocity - weak(x, t, Y).velocity
    torch.testing.assert_close(guided(x, t, Y).velocity, expected)


def test_the_weaker_network_is_called_only_inside_the_interval():
    strong, weak = field_of(), field_of()
    guided = Autoguidance(scale=1.7, low=0.5, high=1.0, guide=weak)(strong)
    guided(torch.randn(2, 3, 2), torch.tensor([0.1, 0.7], dtype=torch.float64), Y)
    guided(torch.randn(2, 3, 2), T, Y)
    assert (strong.items, weak.items, weak.calls) == (4, 1, 1)


def test_what_cannot_be_guided_is_refused_with_what_to_change():
    with pytest.raises(ValueError, match=r"has no null class\. Choose guidance=none or autoguidance"):
        cfg()(field_of(null_class=None))
    with pytest.raises(ValueError, match=r"must use the field's interpolant, GVP, but it uses Linear"):
        Autoguidance(scale=2.0, low=0.0, high=1.0, guide=field_of())(field_of(interpolant=GVP()))
    fast, slow = (VP(beta_min=0.1, beta_max=beta_max) for beta_max in (20.0, 10.0))
    with pytest.raises(ValueError, match=r"interpolant, VP, but it uses VP with other settings"):
        Autoguidance(scale=2.0, low=0.0, high=1.0, guide=field_of(interpolant=fast))(field_of(interpolant=slow))
    with pytest.raises(ValueError, match="low <= high"):
        cfg(low=0.6, high=0.4)
    with pytest.raises(ValueError, match="at least one channel"):
        cfg(channels=0)
