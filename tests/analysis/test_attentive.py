"""Attentive probe: it finds what stands at no fixed token, and chance where there is nothing."""

import pytest
import torch

from ldbench.analysis.attentive import attentive_probe
from ldbench.analysis.probe import linear_probe

SAID = {
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


def test_a_needle_that_no_linear_reader_finds_is_found() -> None:
    (train, train_y), (test, test_y) = needles(2000, seed=0), needles(500, seed=1)
    assert linear_probe(train.flatten(1), train_y, test.flatten(1), test_y, penalty=1.0, max_iter=500).accuracy < 0.75
    found = attentive_probe(train, train_y, test, test_y, **SAID)
    assert found.right.float().mean() > 0.95
    assert found.train_accuracy > 0.95


def test_the_place_of_a_token_counts_too() -> None:
    rng = torch.Generator().manual_seed(0)
    y = torch.randint(4, (800,), generator=rng)
    z = torch.nn.functional.one_hot(y, 4).float()[:, :, None]  # the same token at another place
    found = attentive_probe(z[:600], y[:600], z[600:], y[600:], **SAID)
    assert found.right.all()


def test_what_is_not_there_is_found_by_chance_and_all_chance_is_the_seeds() -> None:
    rng = torch.Generator().manual_seed(0)
    z, y = torch.randn(600, 4, 2, generator=rng), torch.randint(2, (600,), generator=rng)
    before = torch.random.get_rng_state()
    first, again = (attentive_probe(z[:400], y[:400], z[400:], y[400:], **(SAID | {"steps": 50})) for _ in range(2))
    assert abs(first.right.float().mean() - 0.5) < 0.15
    assert torch.equal(first.right, again.right)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_one_class_and_latents_that_are_not_finite_are_refused() -> None:
    z = torch.zeros(4, 2, 2)
    with pytest.raises(ValueError, match="two classes or more"):
        attentive_probe(z, torch.zeros(4).long(), z, torch.zeros(4).long(), **SAID)
    with pytest.raises(ValueError, match="not finite"):
        attentive_probe(z + torch.inf, torch.arange(4), z, torch.arange(4), **SAID)
