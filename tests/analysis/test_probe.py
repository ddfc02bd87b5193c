"""Linear probe: what is linear is found, what is not is chance."""

import pytest
import torch

from ldbench.analysis.probe import LinearProbe, linear_probe

SETTINGS = {"penalty": 1.0, "max_iter": 1000}


def normal(count: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def accuracy(probe: LinearProbe) -> float:
    return probe.correct.double().mean().item()


def test_classes_on_the_two_sides_of_a_plane_are_separated() -> None:
    train, test = normal(300, 5, seed=0), normal(200, 5, seed=1)
    train_y, test_y = ((x @ torch.tensor([1.0, -2.0, 0.5, 0.0, 0.0]) > 0).long() for x in (train, test))
    found = linear_probe(train, train_y, test, test_y, **SETTINGS)
    assert accuracy(found) > 0.97


def test_a_ring_is_found_only_where_the_features_make_it_linear() -> None:
    train, test = normal(1000, 2, seed=0), normal(1000, 2, seed=1)
    train_y, test_y = ((x.square().sum(dim=1) > 1.386).long() for x in (train, test))  # half of each
    assert accuracy(linear_probe(train, train_y, test, test_y, **SETTINGS)) < 0.7
    assert accuracy(linear_probe(train.square(), train_y, test.square(), test_y, **SETTINGS)) > 0.97


def test_scale_and_offset_of_a_feature_do_not_matter() -> None:
    train, test = normal(200, 4, seed=0), normal(150, 4, seed=1)
    train_y, test_y = ((x[:, 0] + 0.3 * x[:, 1].sign() > 0).long() for x in (train, test))
    scale, offset = torch.tensor([1e-4, 1.0, 1e3, 7.0]), torch.tensor([0.0, 5.0, -3.0, 100.0])
    first = linear_probe(train, train_y, test, test_y, **SETTINGS)
    second = linear_probe(train * scale + offset, train_y, test * scale + offset, test_y, **SETTINGS)
    assert accuracy(second) == pytest.approx(accuracy(first), abs=1 / 150 + 1e-9)


def test_a_constant_feature_changes_nothing() -> None:
    train, test = normal(100, 3, seed=0), normal(80, 3, seed=1)
    train_y, test_y = ((x[:, 0] > 0).long() for x in (train, test))
    constant = [torch.cat([x, torch.full((len(x), 1), 3.0)], dim=1) for x in (train, test)]
    padded = linear_probe(constant[0], train_y, constant[1], test_y, **SETTINGS)
    assert torch.equal(padded.correct, linear_probe(train, train_y, test, test_y, **SETTINGS).correct)


def test_chance_is_the_held_out_share_of_the_most_frequent_training_class() -> None:
    train, test = normal(10, 2, seed=0), normal(4, 2, seed=1)
    found = linear_probe(train, torch.tensor([7] * 6 + [2] * 4), test, torch.tensor([7, 2, 2, 5]), **SETTINGS)
    assert found.chance == 0.25


def test_it_is_deterministic_and_leaves_the_global_random_state() -> None:
    train, test = normal(100, 3, seed=0), normal(50, 3, seed=1)
    y = torch.arange(100) % 3
    before = torch.random.get_rng_state()
    first, second = (linear_probe(train, y, test, y[:50], **SETTINGS) for _ in range(2))
    assert torch.equal(first.correct, second.correct)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_one_class_and_latents_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="at least two classes, got 4 items of 1"):
        linear_probe(torch.zeros(4, 2), torch.zeros(4), torch.zeros(1, 2), torch.zeros(1), **SETTINGS)
    with pytest.raises(ValueError, match="NaN or infinity"):
        linear_probe(torch.full((4, 2), torch.inf), torch.arange(4), torch.zeros(1, 2), torch.zeros(1), **SETTINGS)
