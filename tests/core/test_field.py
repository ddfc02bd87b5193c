"""Field: one call, all views of it, and its counts."""

from dataclasses import replace

import pytest
import torch

from ldbench.core.field import Field
from ldbench.core.interpolants import GVP, Linear

T, Y = torch.tensor([0.2, 0.7]), torch.tensor([0, 1])


@pytest.mark.parametrize("interpolant", [Linear(), GVP()])
@pytest.mark.parametrize("kind", ["velocity", "score", "noise", "data"])
def test_all_views_of_one_call_agree_with_the_closed_form(gaussian, interpolant, kind):
    field = gaussian.field(interpolant, kind)
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    prediction = field(x, T, Y)
    for view in ("velocity", "score", "noise", "data"):
        torch.testing.assert_close(getattr(prediction, view), gaussian.predict(interpolant, view, x, T))
    assert (field.calls, field.items) == (1, 2)


def test_a_field_made_of_others_counts_their_calls(gaussian):
    parts = tuple(gaussian.field(Linear(), "velocity") for _ in range(2))

    def first_of_both(x, t, y):
        first, _ = (part(x, t, y) for part in parts)
        return first

    whole = Field(first_of_both, interpolant=Linear(), prediction="velocity", null_class=None, parts=parts)
    x = torch.randn(2, 3, 4)
    whole(x, T, Y)
    parts[0](x[:1], T[:1], Y[:1])
    assert (whole.calls, whole.items) == (3, 5)


def test_where_it_can_be_integrated_depends_on_what_it_predicts(gaussian):
    assert gaussian.field(Linear(), "velocity").interval(1e-3) == (0.0, 1.0)
    assert gaussian.field(Linear(), "data").interval(1e-3) == (1e-3, 0.999)


def test_a_prediction_with_another_value_is_of_the_same_place(gaussian):
    prediction = gaussian.field(Linear(), "velocity")(torch.randn(2, 3, 4), T, Y)
    other = prediction.with_value(prediction.value + 1)
    assert other.x is prediction.x
    torch.testing.assert_close(other.velocity, prediction.velocity + 1)


def test_a_bounded_factor_shortens_velocities_near_the_data_and_nothing_else(gaussian):
    x, t = torch.randn(3, 2, 4, dtype=torch.float64), torch.tensor([0.5, 0.95, 0.99])
    free = gaussian.field(Linear(), "data")(x, t, torch.zeros(3))
    bounded = replace(free, max_velocity_factor=20.0)
    shorter = torch.tensor([1.0, 1.0, 0.2], dtype=torch.float64)[:, None, None]  # the factor at 0.99 is 100
    torch.testing.assert_close(bounded.velocity, shorter * free.velocity, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(bounded.velocity, (free.data - x) / (1 - t).clamp(min=0.05)[:, None, None])
    for view in ("data", "noise", "score"):
        assert torch.equal(getattr(bounded, view), getattr(free, view))
    velocity = gaussian.field(Linear(), "velocity")(x, t, torch.zeros(3))
    assert torch.equal(replace(velocity, max_velocity_factor=0.1).velocity, velocity.velocity)
