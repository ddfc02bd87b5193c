"""Equivariance regularization: transforms of latents and images that fit, and how often they are drawn."""

from collections import Counter

import pytest
import torch

from ldbench.training.equivariance import Equivariance, Transform


def test_a_latent_that_is_the_image_stays_the_image() -> None:
    """For an encoder that averages 4 x 4 pixels, whole scales and rotations commute with encoding."""
    image = torch.rand(2, 3, 16, 16)
    latent = torch.nn.functional.avg_pool2d(image, 4)
    for turns in (0, 1, 2, 3):
        transform = Transform((4, 4), turns)
        pooled = torch.nn.functional.avg_pool2d(transform(image, 4), 4)
        torch.testing.assert_close(transform(latent, 1), pooled)


def test_resizing_is_bilinear_without_antialiasing_and_rotation_comes_after() -> None:
    maps = torch.rand(1, 2, 8, 8)
    resized = torch.nn.functional.interpolate(maps, size=(6, 6), mode="bilinear", align_corners=False)
    assert torch.equal(Transform((6, 6), 1)(maps, 1), resized.rot90(1, (2, 3)))
    assert Transform((6, 6), 3)(torch.rand(1, 3, 32, 32), 4).shape == (1, 3, 24, 24)


def test_the_scales_of_32_rows_are_those_of_the_paper() -> None:
    assert Equivariance(probability=0.5).rows((32, 32)) == range(8, 32)
    assert Equivariance(probability=0.5, scales=(1, 1)).rows((4, 4)) == range(4, 5)


def test_kinds_scales_and_angles_are_drawn_as_often_as_they_say() -> None:
    torch.manual_seed(0)
    settings = Equivariance(probability=0.5)
    drawn = [settings.draw((32, 32)) for _ in range(6000)]
    pairs = [pair for pair, _ in drawn if pair is not None]
    resized = [resizing for _, resizing in drawn if resizing is not None]
    assert not any(pair and resizing for pair, resizing in drawn)
    assert len(pairs) / len(drawn) == pytest.approx(0.5, abs=0.02)
    assert len(resized) / (len(drawn) - len(pairs)) == pytest.approx(0.25, abs=0.025)
    assert {turns: round(count / len(pairs), 1) for turns, count in Counter(p.turns for p in pairs).items()} == {
        1: 0.3,
        2: 0.3,
        3: 0.3,
    }
    assert {pair.grid[0] for pair in pairs} == set(range(8, 32))
    assert all(resizing.turns == 0 for resizing in resized)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"probability": 1.5}, "equivariance.probability"),
        ({"downscaled": -0.1}, "equivariance.downscaled"),
        ({"scales": [0.5]}, "equivariance.scales"),
        ({"scales": [0.0, 1.0]}, "equivariance.scales"),
        ({"rotations": [45]}, "equivariance.rotations"),
        ({"rotations": []}, "equivariance.rotations"),
    ],
)
def test_numbers_out_of_range_are_refused_by_name(changes, word) -> None:
    with pytest.raises(ValueError, match=word):
        Equivariance(**changes)


def test_scales_without_a_whole_number_of_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="no whole number of 3 rows"):
        Equivariance(probability=1.0, scales=(0.4, 0.6)).rows((3, 3))
