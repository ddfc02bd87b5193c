"""A small generator of fixed budget: known values of its loss, and no side effects."""

import math

import pytest
import torch

from ldbench.analysis.small_generator import NORMAL_LOSS, Budget

SIZE = {"width": 16, "depth": 1, "num_heads": 2, "batch_size": 64, "lr": 5e-3, "repeats": 8, "seed": 0}
CPU = torch.device("cpu")


def learn(z: torch.Tensor, steps: int, **settings):
    half = len(z) // 2
    y = torch.arange(len(z)) % 2
    return Budget(**{**SIZE, "steps": steps, **settings}).learn(
        z[:half], y[:half], z[half:], y[half:], num_classes=2, device=CPU
    )


def normal(count: int = 1024) -> torch.Tensor:
    return torch.randn(count, 3, 4, generator=torch.Generator().manual_seed(0))


def test_before_training_the_error_is_that_of_zero_velocity() -> None:
    found = learn(normal(), steps=0)  # E |z - noise|^2 = 1 + 1
    assert found.heldout.mean().item() == pytest.approx(2.0, rel=0.02)
    assert found.explained == pytest.approx(1 - 2 / (math.pi / 2), abs=0.03)


@pytest.mark.trains
def test_on_independent_normal_numbers_it_approaches_the_optimum_and_not_below() -> None:
    found = learn(normal(4096), steps=300)
    assert NORMAL_LOSS * 0.98 <= found.heldout.mean().item() <= NORMAL_LOSS * 1.08
    assert found.heldout.shape == (2048,)


@pytest.mark.slow
def test_structured_latents_are_learned_better_and_labels_help() -> None:
    z = normal()
    alike = z[:, :1, :1].expand_as(z)  # one number, repeated twelve times
    assert learn(alike.contiguous(), steps=300).explained > 0.5
    # the class determines everything
    sides = 0.05 * z + torch.where(torch.arange(len(z)) % 2 == 0, 1.0, -1.0)[:, None, None]
    assert learn(sides, steps=300).explained > 0.6


def test_scale_and_shift_of_a_channel_do_not_matter() -> None:
    z = normal()
    scaled = z * torch.tensor([1e-3, 1.0, 5.0, 100.0]) + torch.tensor([0.0, 3.0, -50.0, 7.0])
    torch.testing.assert_close(learn(z, steps=20).heldout, learn(scaled, steps=20).heldout, rtol=1e-3, atol=1e-4)


def test_it_is_reproducible_and_leaves_the_global_random_state() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with torch.no_grad():  # as a callback may call it
        first = learn(normal(), steps=5)
    assert torch.equal(torch.rand(3), expected)
    again = learn(normal(), steps=5)
    assert torch.equal(first.heldout, again.heldout)
    assert not torch.equal(first.heldout, learn(normal(), steps=5, seed=1).heldout)


@pytest.mark.parametrize("settings", [{"width": 0}, {"width": 15}, {"steps": -1}, {"lr": 0.0}, {"repeats": 0}])
def test_a_budget_out_of_range_is_refused(settings: dict) -> None:
    with pytest.raises(ValueError, match="budget"):
        Budget(**{**SIZE, "steps": 1, **settings})


def test_latents_that_are_not_finite_are_refused() -> None:
    z = normal()
    z[0, 0, 0] = math.nan
    with pytest.raises(ValueError, match="NaN or infinity"):
        learn(z, steps=1)
