"""Paths: a linear decoder moves straight and evenly, others do not, and the nearest item is found in any parts."""

import math

import pytest
import torch

from ldbench.analysis.paths import distance_to_data, interpolate, measure_paths


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_points_are_evenly_spaced_from_end_to_end() -> None:
    start, end = normal(3, 4, 2), normal(3, 4, 2, seed=1)
    points = interpolate(start, end, 5)
    torch.testing.assert_close(points[0], start)
    torch.testing.assert_close(points[4], end)
    torch.testing.assert_close(points[1], 0.75 * start + 0.25 * end)


def test_the_path_of_a_linear_decoder_is_as_long_as_its_chord() -> None:
    start, end, decoder = normal(3, 4, 2), normal(3, 4, 2, seed=1), normal(30, 8, seed=2)
    path = measure_paths(interpolate(start, end, 6).flatten(2) @ decoder.T)
    exact = ((end - start).flatten(1) @ decoder.T).square().mean(dim=1).sqrt()
    torch.testing.assert_close(path.length, exact)
    torch.testing.assert_close(path.chord, exact)
    torch.testing.assert_close(path.detour, torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(path.largest_step, exact / 5)


def test_half_a_circle_is_half_of_pi_longer_than_its_diameter() -> None:
    angle = torch.linspace(0, math.pi, 2001, dtype=torch.float64)
    path = measure_paths(torch.stack([angle.cos(), angle.sin()], dim=1)[:, None])
    assert path.detour.item() == pytest.approx(math.pi / 2, rel=1e-6)


def test_the_largest_step_shows_a_jump() -> None:
    points = torch.tensor([0.0, 0.0, 0.0, 5.0, 5.0])[:, None, None]
    assert measure_paths(points).largest_step.item() == measure_paths(points).length.item() == 5.0


def test_the_middle_of_two_items_is_as_far_from_the_nearest_as_geometry_requires() -> None:
    data = torch.tensor([[0.0, 0.0], [4.0, 0.0], [2.0, 1.0]])
    found = distance_to_data(torch.tensor([[2.0, 0.0], [4.0, 0.0], [6.0, 0.0]]), [data[:1], data[1:]])
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64) / math.sqrt(2))


def test_parts_and_shapes_of_the_data_do_not_matter() -> None:
    points, data = normal(5, 3, 2, 2), normal(40, 3, 2, 2, seed=1)
    whole = distance_to_data(points, [data])
    torch.testing.assert_close(distance_to_data(points, data.split(7)), whole)
    by_hand = (points[:, None] - data[None]).square().mean(dim=(2, 3, 4)).sqrt().min(dim=1).values
    torch.testing.assert_close(whole, by_hand)


def test_too_few_points_and_no_data_are_refused() -> None:
    with pytest.raises(ValueError, match="at least two points, got 1"):
        interpolate(normal(1, 1, 1), normal(1, 1, 1), 1)
    with pytest.raises(ValueError, match="is empty"):
        distance_to_data(normal(2, 3), [])
