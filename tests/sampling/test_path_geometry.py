"""Geometry of paths: 1 for straight lines, the closed form on circles, the same samples, no extra call, refusals."""

import math

import pytest
import torch
from torch import Tensor

from ldbench.config.components import instantiate
from ldbench.config.compose import Registry
from ldbench.core.field import Field, Prediction
from ldbench.core.interpolants import Discrete, Linear
from ldbench.sampling.mean_flow import MeanFlowSampler
from ldbench.sampling.ode import Dopri5, FixedGrid
from ldbench.sampling.path_geometry import GeometryRecorder, PathGeometry, follow

Y = torch.zeros(8, dtype=torch.long)


def noise() -> Tensor:
    return torch.randn(8, 3, 2, generator=torch.Generator().manual_seed(0))


def field_of(velocity) -> Field:
    """The field of a velocity (x, t) -> (B, N, C)."""

    def predict(x: Tensor, t: Tensor, y: Tensor) -> Prediction:
        return Prediction(velocity(x, t), "velocity", x, t, Linear())

    return Field(predict, interpolant=Linear(), prediction="velocity", null_class=None)


def euler(num_steps: int) -> FixedGrid:
    return FixedGrid(rule="euler", num_steps=num_steps, shift=1.0, margin=1e-3, last_step="none", dtype="float64")


def geometry(sampler: FixedGrid, velocity, start: Tensor | None = None) -> PathGeometry:
    recorder = GeometryRecorder(sampler)
    recorder(field_of(velocity), noise() if start is None else start, Y)
    assert recorder.last is not None
    return recorder.last


def test_straight_lines_have_exactly_one_of_both() -> None:
    direction = torch.randn(8, 3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = geometry(euler(7), lambda x, t: (1 + t[:, None, None]) * direction)
    torch.testing.assert_close(found.straightness, torch.ones(8, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(found.efficiency, torch.ones(8, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("speed", "num_steps"), [(1.0, 4), (2 * math.pi, 20)])
def test_rotations_have_their_closed_form(speed: float, num_steps: int) -> None:
    """An Euler step of h multiplies a complex number by 1 + i h speed: it turns by the argument, and lengthens."""

    def rotate(x: Tensor, t: Tensor) -> Tensor:
        return speed * torch.stack([-x[..., 1], x[..., 0]], dim=-1)

    found = geometry(euler(num_steps), rotate)
    factor = complex(1, speed / num_steps)
    length = sum(abs(factor - 1) * abs(factor) ** step for step in range(num_steps))
    assert found.straightness.tolist() == pytest.approx([1 / abs(factor)] * 8)  # the cosine of its argument
    assert found.efficiency.tolist() == pytest.approx([abs(factor**num_steps - 1) / length] * 8)


def test_there_and_back_turns_around_and_arrives_nowhere() -> None:
    x = noise()
    _, found = follow([x, x + 1, x])
    assert found.straightness.tolist() == pytest.approx([-1] * 8)
    assert found.efficiency.tolist() == pytest.approx([0] * 8, abs=1e-6)


def test_rests_on_a_path_do_not_count_and_a_path_that_stays_is_straight() -> None:
    x = noise()
    _, found = follow([x, x, x + 1, x + 2, x + 2])
    assert found.straightness.tolist() == pytest.approx([1] * 8)
    _, still = follow([x, x, x])
    assert (still.straightness.tolist(), still.efficiency.tolist()) == ([1] * 8, [1] * 8)


@pytest.mark.parametrize("name", [name for name in sorted(Registry().options("sampler")) if name != "dopri5"])
def test_the_samples_of_every_sampler_are_the_same_at_no_extra_call(gaussian, name: str) -> None:
    node = Registry().option("sampler", name)
    sampler = instantiate({**node, **({"num_steps": 3} if node.get("num_steps") == 1 else {})})
    discrete = Discrete(schedule="linear", num_times=1000)
    interpolant = discrete if name in ("ancestral", "ddim") else Linear()
    kind = "noise" if interpolant is discrete else "velocity"
    steps = torch.randn(1000, 8, 3, 2, generator=torch.Generator().manual_seed(1))
    extra = {"increments": steps} if sampler.stochastic else {}
    fields = [gaussian.field(interpolant, kind) for _ in range(2)]
    for field in fields:  # for the sampler that asks for averages
        field.average = lambda x, t, r, y: gaussian.predict(interpolant, "velocity", x, t)
    recorder = GeometryRecorder(sampler)
    assert torch.equal(recorder(fields[0], noise(), Y, **extra), sampler(fields[1], noise(), Y, **extra))
    assert fields[0].calls == fields[1].calls
    assert recorder.stochastic == sampler.stochastic
    assert recorder.last is not None
    assert recorder.last.straightness.abs().max() <= 1
    assert 0 < recorder.last.efficiency.min() <= recorder.last.efficiency.max() <= 1


def test_hidden_steps_and_a_single_step_are_refused() -> None:
    adaptive = Dopri5(atol=1e-6, rtol=1e-5, margin=1e-3, last_step="none", dtype="float64")
    with pytest.raises(ValueError, match=r"paths of Dopri5 cannot be measured.*job.path_geometry=false"):
        GeometryRecorder(adaptive)
    for single in (euler(1), MeanFlowSampler(num_steps=1, shift=1.0, dtype="float32")):
        with pytest.raises(ValueError, match=r"at least two steps.*takes 1.*sampler.num_steps=2"):
            GeometryRecorder(single)  # before anything is sampled
    with pytest.raises(ValueError, match=r"at least two steps.*takes 1"):
        follow([torch.zeros(1, 2), torch.ones(1, 2)])
