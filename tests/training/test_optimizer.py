"""The optimizer's numbers: schedules at the steps whose rate is known, decay groups, and refusals."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from ldbench.training.optimizer import AdamW, weight_decay_groups

DEFAULT = {
    "lr": 2e-3,
    "betas": (0.9, 0.95),
    "eps": 1e-8,
    "weight_decay": 0.05,
    "schedule": "cosine",
    "warmup_steps": 4,
    "warmup_lr": None,
    "min_lr": 2e-4,
    "clip_norm": None,
}


def adamw(**changed) -> AdamW:
    return AdamW(**DEFAULT | changed)


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_warm_up_climbs_in_equal_steps_that_neither_start_at_zero_nor_reach_the_rate_early(schedule):
    rates = [adamw(schedule=schedule).factor(step, 100) for step in range(5)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_the_cosine_is_halfway_down_in_the_middle_and_ends_at_the_smallest_rate():
    optimizer = adamw()
    assert optimizer.factor(4, 104) == 1
    assert optimizer.factor(54, 104) == pytest.approx(0.1 + 0.9 / 2)
    assert optimizer.factor(29, 104) == pytest.approx(0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)
    assert optimizer.factor(104, 104) == pytest.approx(0.1)
    assert optimizer.factor(500, 104) == pytest.approx(0.1)


def test_a_cosine_to_zero_ends_at_zero():
    assert adamw(min_lr=0.0).factor(104, 104) == 0


def test_after_warm_up_the_cosine_only_falls():
    rates = [adamw().factor(step, 50) for step in range(4, 51)]
    assert all(a > b for a, b in pairwise(rates))


def test_a_constant_rate_stays():
    assert {adamw(schedule="constant").factor(step, 10) for step in (4, 5, 10, 1000)} == {1.0}


@pytest.mark.parametrize(
    ("step", "rate"),
    [(1, 1.0038e-5), (2502, 1.05e-4), (5004, 1.99956e-4), (100_000, 1.82838e-4), (250_200, 1.1e-4), (500_400, 2e-5)],
)
def test_a_cosine_from_the_start_has_the_rates_of_maetoks_released_script(step, rate):
    optimizer = adamw(lr=2e-4, schedule="cosine_from_start", warmup_steps=5004, warmup_lr=1e-5, min_lr=2e-5)
    assert 2e-4 * optimizer.factor(step - 1, 500_400) == pytest.approx(rate, rel=1e-5)


def test_a_line_falls_evenly_after_a_rate_that_stays():
    optimizer = adamw(lr=2e-4, schedule="linear", warmup_steps=40, warmup_lr=2e-4, min_lr=2e-5)  # RAE's, in epochs
    rates = [2e-4 * optimizer.factor(step, 800) for step in (0, 39, 40, 420, 800, 900)]
    assert rates == pytest.approx([2e-4, 2e-4, 2e-4, 1.1e-4, 2e-5, 2e-5])


def test_a_warm_up_starts_between_zero_and_the_rate():
    with pytest.raises(ValueError, match=r"warmup_lr must lie between 0 and lr 0\.002"):
        adamw(warmup_lr=1.0)


def test_without_warm_up_the_first_step_has_the_full_rate():
    assert adamw(warmup_steps=0).factor(0, 10) == 1
    assert adamw(warmup_steps=0, schedule="constant").factor(0, 10) == 1


def test_a_stage_shorter_than_its_warm_up_stays_finite():
    assert [adamw(warmup_steps=4).factor(step, 2) for step in (0, 2, 4, 5)] == pytest.approx([0.2, 0.6, 1.0, 0.1])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"schedule": "step"}, "Unknown schedule 'step'. Choose one of cosine, cosine_from_start, linear, constant"),
        ({"lr": 0.0, "min_lr": 0.0}, "lr > 0, got lr 0.0"),
        ({"lr": -1.0}, "lr > 0, got lr -1.0"),
        ({"min_lr": -1e-5}, "0 <= min_lr <= lr"),
        ({"min_lr": 1.0}, "got lr 0.002 and min_lr 1.0"),
        ({"clip_norm": 0.0}, "clip_norm must be positive, or null"),
    ],
)
def test_numbers_out_of_range_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        adamw(**changed)


class Mixed(nn.Module):
    """A matrix, a vector, a scalar, a four-dimensional kernel, a frozen matrix and a buffer."""

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.ones(2, 3))
        self.vector = nn.Parameter(torch.ones(3))
        self.scalar = nn.Parameter(torch.ones(()))
        self.kernel = nn.Parameter(torch.ones(2, 1, 1, 1))
        self.frozen = nn.Parameter(torch.ones(5, 5), requires_grad=False)
        self.register_buffer("table", torch.ones(4, 4))


def test_matrices_and_kernels_decay_and_vectors_scalars_and_what_is_frozen_do_not():
    module = Mixed()
    decayed, spared = weight_decay_groups(module.parameters(), 0.05)
    assert [id(p) for p in decayed["params"]] == [id(module.matrix), id(module.kernel)]
    assert [id(p) for p in spared["params"]] == [id(module.vector), id(module.scalar)]
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.05, 0.0)


def test_the_parameters_of_all_modules_are_optimized_with_the_numbers_of_the_recipe():
    modules = [Mixed(), nn.Linear(3, 3)]
    optimizer = adamw().build([p for module in modules for p in module.parameters()])
    assert isinstance(optimizer, torch.optim.AdamW)
    assert [len(group["params"]) for group in optimizer.param_groups] == [3, 3]
    for group in optimizer.param_groups:
        assert group["lr"] == 2e-3
        assert tuple(group["betas"]) == (0.9, 0.95)


def test_one_step_without_gradient_direction_shrinks_matrices_by_rate_times_decay():
    module = Mixed()
    optimizer = adamw().build(module.parameters())
    for p in (module.matrix, module.vector):
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert torch.allclose(module.matrix, torch.full((2, 3), 1 - 2e-3 * 0.05))
    assert torch.equal(module.vector, torch.ones(3))
    assert torch.equal(module.kernel, torch.ones(2, 1, 1, 1)), "no gradient, no decay"
    assert torch.equal(module.frozen, torch.ones(5, 5))


def test_a_step_in_one_kernel_is_the_same_but_for_rounding():
    modules = [Mixed(), Mixed()]
    optimizers = [
        adamw().build(module.parameters(), fused=fused) for module, fused in zip(modules, (False, True), strict=True)
    ]
    assert [bool(optimizer.param_groups[0]["fused"]) for optimizer in optimizers] == [False, True]
    for _ in range(3):
        for module, optimizer in zip(modules, optimizers, strict=True):
            module.matrix.grad, module.scalar.grad = torch.linspace(-1, 1, 6).view(2, 3), torch.ones(())
            optimizer.step()
    for plain, fused in zip(*(module.parameters() for module in modules), strict=True):
        torch.testing.assert_close(fused, plain)
    assert not torch.equal(modules[1].matrix, torch.ones(2, 3))
