"""Nearest neighbors: they find classes of any shape."""

import pytest
import torch

from ldbench.analysis.knn import nearest_neighbors


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_ring_that_no_plane_finds_is_found() -> None:
    train, test = normal(1000, 2), normal(500, 2, seed=1)
    train_y, test_y = ((x.square().sum(dim=1) > 1.386).long() for x in (train, test))
    assert nearest_neighbors(train, train_y, test, test_y, k=10).correct.float().mean() > 0.95


def test_random_classes_are_found_at_chance() -> None:
    train, test = normal(1000, 4), normal(1000, 4, seed=1)
    found = nearest_neighbors(train, torch.arange(1000) % 2, test, torch.arange(1000) % 2, k=10)
    assert abs(found.correct.float().mean() - 0.5) < 0.06


def test_the_nearer_weighs_more() -> None:
    train, y = torch.tensor([[0.0], [3.0], [-3.0]]), torch.tensor([5, 2, 2])
    assert nearest_neighbors(train, y, torch.tensor([[0.5]]), torch.tensor([5]), k=3).correct.tolist() == [True]
    assert nearest_neighbors(train, y, torch.tensor([[2.5]]), torch.tensor([5]), k=3).correct.tolist() == [False]


def test_too_many_neighbors_and_numbers_that_are_not_finite_are_refused() -> None:
    x, y = normal(3, 2), torch.arange(3)
    with pytest.raises(ValueError, match="Choose k from 1 to 3"):
        nearest_neighbors(x, y, x, y, k=4)
    with pytest.raises(ValueError, match="NaN or infinity"):
        nearest_neighbors(x, y, torch.full((3, 2), torch.nan), y, k=1)
