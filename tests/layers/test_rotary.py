"""Rotary positions: lengths stay, and what two tokens say to each other depends on their distance alone."""

import math

import pytest
import torch

from ldbench.layers.rotary import MixedRotary, grid_rotations, initial_frequencies, rotate, sequence_rotations


@pytest.fixture
def rotary():
    torch.manual_seed(0)
    return MixedRotary(depth=2, num_heads=3, head_dim=8, theta=10.0)


def test_a_turn_keeps_lengths_and_leaves_the_tokens_around_the_grid_alone(rotary):
    x = torch.randn(2, 3, 1 + 12 + 2, 8)
    turned = rotate(x, *rotary((3, 4), before=1, after=2)[0])
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(turned[:, :, :1], x[:, :, :1])
    assert torch.equal(turned[:, :, 13:], x[:, :, 13:])
    assert not torch.allclose(turned[:, :, 2:13], x[:, :, 2:13])


def test_products_depend_on_the_distance_of_two_positions(rotary):
    cos, sin = rotary((4, 5), before=0, after=0)[1]
    q, k = torch.randn(1, 3, 1, 8), torch.randn(1, 3, 1, 8)
    turned_q, turned_k = (rotate(x.expand(-1, -1, 20, -1), cos, sin).view(3, 4, 5, 8) for x in (q, k))
    first = (turned_q[:, 0, 1] * turned_k[:, 2, 3]).sum(-1)  # two rows down, two columns right
    second = (turned_q[:, 1, 2] * turned_k[:, 3, 4]).sum(-1)
    torch.testing.assert_close(first, second)


def test_pairs_are_adjacent_and_turn_by_their_angle():
    x = torch.tensor([1.0, 0.0, 0.0, 1.0]).view(1, 1, 1, 4)
    angle = torch.tensor([[[math.pi / 2, math.pi / 6]]])
    torch.testing.assert_close(
        rotate(x, angle.cos(), angle.sin()).flatten(), torch.tensor([0.0, 1.0, -0.5, math.sqrt(3) / 2])
    )


def test_initial_frequencies_lie_along_and_across_one_direction():
    f = initial_frequencies(torch.tensor([0.7]), head_dim=8, theta=10.0)  # (2, 1, 4)
    torch.testing.assert_close(f.square().sum(0).sqrt()[0], torch.tensor([1.0, 10**-0.5, 1.0, 10**-0.5]))
    assert (f[:, 0, :2] * f[:, 0, 2:]).sum().abs() < 1e-6
    with pytest.raises(ValueError, match="divisible by 4"):
        initial_frequencies(torch.zeros(1), head_dim=6, theta=10.0)


def test_it_computes_in_float32_and_gives_back_what_came():
    x = torch.randn(1, 1, 2, 4).bfloat16()
    assert rotate(x, torch.ones(1, 2, 2), torch.zeros(1, 2, 2)).dtype == torch.bfloat16


def test_a_sequence_turns_each_pair_at_its_own_speed():
    cos, sin = sequence_rotations(3, head_dim=4, theta=100.0)
    angles = torch.tensor([[0.0, 0.0], [1.0, 0.1], [2.0, 0.2]])
    torch.testing.assert_close(cos, angles.cos().unsqueeze(0))
    torch.testing.assert_close(sin, angles.sin().unsqueeze(0))


def test_a_grid_turns_the_first_half_of_a_head_by_the_row_and_the_second_by_the_column():
    cos, sin = grid_rotations((2, 3), head_dim=8, theta=100.0)
    assert cos.shape == (1, 6, 4)
    for row in range(2):
        for column in range(3):
            angles = torch.tensor([row, row * 0.1, column, column * 0.1])
            torch.testing.assert_close(cos[0, 3 * row + column], angles.cos())
            torch.testing.assert_close(sin[0, 3 * row + column], angles.sin())


def test_fixed_rotations_need_pairs_and_a_positive_base():
    with pytest.raises(ValueError, match="a head has 3 features per axis"):
        grid_rotations((2, 2), head_dim=6, theta=100.0)
    with pytest.raises(ValueError, match="5 features"):
        sequence_rotations(2, head_dim=5, theta=100.0)
    with pytest.raises(ValueError, match="must be positive, got 0"):
        sequence_rotations(2, head_dim=4, theta=0)
