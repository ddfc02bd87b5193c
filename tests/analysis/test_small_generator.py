"""A small generator of fixed budget: what is known of its loss, and that it touches nothing."""

import math

import pytest
import torch

from ldbench.analysis.small_generator import NORMAL_LOSS, Budget

SIZE = {"width": 16, "depth": 1, "num_heads": 2, "batch_size": 64, "lr": 5e-3, "repeats": 8, "seed": 0}
CPU = torch.device("cpu")


def learn(z: torch.Tensor, steps: int, **said):
    half = len(z) // 2
    y = torch.arange(len(z)) % 2
    return Budget(**{**SIZE, "steps": steps, **said}).learn(
        z[:half], y[:half], z[half:], y[half:], num_classes=2, device=CPU
    )


def normal(count: int = 1024) -> torch.Tensor:
    return torch.randn(count, 3, 4, generator=torch.Generator().manual_seed(0))


def test_before_any_step_the_error_is_that_of_no_velocity_at_all() -> None:
    told = learn(normal(), steps=0)  # E |z - noise|^2 = 1 + 1
    assert told.heldout.mean().item() == pytest.approx(2.0, rel=0.02)
    assert told.explained == pytest.approx(1 - 2 / (math.pi / 2), abs=0.03)


def test_of_independent_normal_numbers_it_comes_near_the_best_there_is_and_not_below() -> None:
    told = learn(normal(4096), steps=300)
    assert NORMAL_LOSS * 0.98 <= told.heldout.mean().item() <= NORMAL_LOSS * 1.08
    assert told.heldout.shape == (2048,)


def test_latents_with_form_are_learned_better_and_labels_help() -> None:
    z = normal()
    alike = z[:, :1, :1].expand_as(z)  # one number, told twelve times
    assert learn(alike.contiguous(), steps=300).explained > 0.5
    sides = 0.05 * z + torch.where(torch.arange(len(z)) % 2 == 0, 1.0, -1.0)[:, None, None]  # the class is all there is
    assert learn(sides, steps=300).explained > 0.6


def test_no_scale_and_no_shift_of_a_channel_counts() -> None:
    z = normal()
    scaled = z * torch.tensor([1e-3, 1.0, 5.0, 100.0]) + torch.tensor([0.0, 3.0, -50.0, 7.0])
    torch.testing.assert_close(learn(z, steps=20).heldout, learn(scaled, steps=20).heldout, rtol=1e-3, atol=1e-4)


def test_it_repeats_itself_and_moves_no_stream_of_others() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with torch.no_grad():  # as a callback may call it
        first = learn(normal(), steps=5)
    assert torch.equal(torch.rand(3), expected)
    again = learn(normal(), steps=5)
    assert torch.equal(first.heldout, again.heldout)
    assert not torch.equal(first.heldout, learn(normal(), steps=5, seed=1).heldout)


@pytest.mark.parametrize("said", [{"width": 0}, {"width": 15}, {"steps": -1}, {"lr": 0.0}, {"repeats": 0}])
def test_a_budget_out_of_range_is_refused(said: dict) -> None:
    with pytest.raises(ValueError, match="budget"):
        Budget(**{**SIZE, "steps": 1, **said})


def test_latents_that_are_not_finite_are_refused() -> None:
    z = normal()
    z[0, 0, 0] = math.nan
    with pytest.raises(ValueError, match="not finite"):
        learn(z, steps=1)
