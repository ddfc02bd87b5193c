"""Attentive probe: it finds information at no fixed token, and is at chance without any."""

import pytest
import torch

from ldbench.analysis.attentive import attentive_probe
from ldbench.analysis.probe import linear_probe

SETTINGS = {
    "width": 32,
    "num_heads": 2,
    "steps": 400,
    "batch_size": 64,
    "lr": 3e-3,
    "weight_decay": 0.0,
    "seed": 0,
    "device": torch.device("cpu"),
}


def needles(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of eight tokens one is marked; its sign is the class. The others have signs of their own."""
    rng = torch.Generator().manual_seed(seed)
    signs = torch.randint(2, (count, 8), generator=rng) * 2.0 - 1
    marked = torch.randint(8, (count,), generator=rng)
    mark = torch.nn.functional.one_hot(marked, 8).float()
    return torch.stack([3 * mark, signs], dim=2), (signs[torch.arange(count), marked] > 0).long()


@pytest.mark.slow
def test_a_needle_that_no_linear_probe_finds_is_found() -> None:
    (train, train_y), (test, test_y) = needles(2000, seed=0), needles(500, seed=1)
    linear = linear_probe(train.flatten(1), train_y, test.flatten(1), test_y, penalty=1.0, max_iter=500)
    assert linear.correct.float().mean() < 0.75
    found = attentive_probe(train, train_y, test, test_y, **SETTINGS)
    assert found.correct.float().mean() > 0.95
    assert found.train_accuracy > 0.95


@pytest.mark.slow
def test_the_position_of_a_token_counts_too() -> None:
    rng = torch.Generator().manual_seed(0)
    y = torch.randint(4, (800,), generator=rng)
    z = torch.nn.functional.one_hot(y, 4).float()[:, :, None]  # the same token at another position
    found = attentive_probe(z[:600], y[:600], z[600:], y[600:], **SETTINGS)
    assert found.correct.all()


def test_without_information_it_is_at_chance_and_all_randomness_is_the_seeds() -> None:
    rng = torch.Generator().manual_seed(0)
    z, y = torch.randn(600, 4, 2, generator=rng), torch.randint(2, (600,), generator=rng)
    before = torch.random.get_rng_state()
    first, again = (attentive_probe(z[:400], y[:400], z[400:], y[400:], **(SETTINGS | {"steps": 50})) for _ in range(2))
    assert abs(first.correct.float().mean() - 0.5) < 0.15
    assert torch.equal(first.correct, again.correct)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_one_class_and_latents_that_are_not_finite_are_refused() -> None:
    z = torch.zeros(4, 2, 2)
    with pytest.raises(ValueError, match="at least two classes"):
        attentive_probe(z, torch.zeros(4).long(), z, torch.zeros(4).long(), **SETTINGS)
    with pytest.raises(ValueError, match="NaN or infinity"):
        attentive_probe(z + torch.inf, torch.arange(4), z, torch.arange(4), **SETTINGS)
