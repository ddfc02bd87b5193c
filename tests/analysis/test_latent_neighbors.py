"""Latents between an image and its neighbors: exact neighbors, probabilities, great circles."""

import math

import pytest
import torch

from ldbench.analysis.latent_neighbors import between, choose_neighbors, nearest_by_cosine


def normal(count: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("block", [1, 7, 50])
def test_neighbors_are_those_of_the_largest_cosine_whatever_the_blocks(block: int) -> None:
    z, training = normal(6, 4), normal(50, 4, seed=1) * torch.rand(50, 1)
    cosines = torch.nn.functional.cosine_similarity(z[:, None], training[None], dim=2)
    assert torch.equal(nearest_by_cosine(z, training.split(block), 5), cosines.topk(5).indices)


def test_fewer_training_latents_than_neighbors_are_refused() -> None:
    with pytest.raises(ValueError, match="There are 3 training latents, and 4 neighbors"):
        nearest_by_cosine(normal(2, 3), [normal(3, 3)], 4)


def test_a_neighbor_is_drawn_with_its_softmax_probability() -> None:
    z = torch.zeros(1, 2)
    neighbors = torch.tensor([[[0.0, 0.0], [1.0, 1.0], [2.0, 0.0]]])  # mean squared differences 0, 1 and 2
    u = (torch.arange(3000) + 0.5) / 3000
    chosen = choose_neighbors(z.expand(3000, -1), neighbors.expand(3000, -1, -1), u)
    expected = torch.tensor([0.0, -1.0, -2.0]).softmax(dim=0)
    torch.testing.assert_close(chosen.bincount() / 3000, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("path", ["slerp", "linear"])
def test_the_ends_of_a_path_are_its_latents(path: str) -> None:
    a, b = normal(5, 6), normal(5, 6, seed=1)
    torch.testing.assert_close(between(a, b, 0.0, path), a)
    torch.testing.assert_close(between(a, b, 1.0, path), b)


def test_on_a_great_circle_the_norm_and_the_angle_are_even() -> None:
    a, b = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[0.0, 2.0, 0.0]])
    found = between(a, b, 1 / 3, "slerp")
    expected = 2 * torch.tensor([[math.cos(math.pi / 6), math.sin(math.pi / 6), 0.0]])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(between(a, b, 0.5, "linear"), torch.tensor([[1.0, 1.0, 0.0]]))


def test_parallel_opposite_and_empty_latents_have_straight_lines() -> None:
    a = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    b = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(between(a, b, 0.5, "slerp"), (a + b) / 2)
