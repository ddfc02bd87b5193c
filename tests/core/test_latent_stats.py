"""Statistics by which a tokenizer's authors normalize its latents: read as they state them."""

import math
from typing import Any

import pytest
import torch

from ldbench.core.latent_stats import LatentStats, from_settings


@pytest.mark.parametrize(
    ("settings", "mean", "std"),
    [
        ({"vq_mean": -0.003, "vq_std": 0.07}, -0.003, 0.07),
        ({"latents_mean": [0.5, -0.5], "latents_std": [2.0, 4.0]}, (0.5, -0.5), (2.0, 4.0)),
        ({"shift_factor": 0.0609, "scaling_factor": 1.5305}, 0.0609, 1 / 1.5305),
        ({"shift_factor": None, "scaling_factor": 0.18215, "latents_mean": None}, 0.0, 1 / 0.18215),
    ],
)
def test_settings_state_statistics_in_three_ways(settings: dict[str, Any], mean: Any, std: Any) -> None:
    assert from_settings(settings) == LatentStats(mean, std)


def test_settings_without_statistics_state_none() -> None:
    assert from_settings({"image_size": 256, "scaling_factor": None}) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latents_mean": [0.0]}, "latents_mean without latents_std"),
        ({"latents_std": [1.0], "scaling_factor": 0.2}, "latents_std without latents_mean"),
        ({"shift_factor": 0.1}, "shift_factor without scaling_factor"),
        ({"vq_mean": 0.0, "vq_std": 1.0, "scaling_factor": 0.2}, "twice, by scaling_factor, vq_mean, vq_std"),
        (
            {"vq_mean": 0.0, "vq_std": 1.0, "latents_mean": 0.0, "latents_std": 1.0},
            "twice, by latents_mean, latents_std, vq_mean, vq_std",
        ),
        ({"scaling_factor": 0}, "scale of latents must be above zero, got 0"),
        ({"vq_mean": 0.0, "vq_std": 0.0}, "std, which must be above zero, got 0"),
        ({"vq_mean": math.nan, "vq_std": 1.0}, "mean of latents must be a finite number"),
        ({"vq_mean": "0.1", "vq_std": 1.0}, "mean of latents must be a finite number"),
        ({"latents_mean": [], "latents_std": []}, "mean of latents must be a finite number"),
        ({"latents_mean": [True], "latents_std": [1.0]}, "mean of latents must be a finite number"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_settings(settings)


@pytest.mark.parametrize(
    "stats", [LatentStats(0.5, 2.0), LatentStats((0.5, 1.5), (2.0, 4.0)), LatentStats(0.0, (1.0, 3.0))]
)
def test_one_number_stays_one_number_and_normalizes_every_channel(stats: LatentStats) -> None:
    assert LatentStats.from_dict(stats.to_dict()) == stats
    assert isinstance(stats.to_dict()["mean"], list) == isinstance(stats.mean, tuple)
    z = torch.randn(3, 5, 2)
    by_hand = (z - torch.tensor(stats.mean)) / torch.tensor(stats.std)
    torch.testing.assert_close(stats.normalizer(2).normalize(z), by_hand)


def test_statistics_of_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="of 2 channels, but these latents have 3"):
        LatentStats((0.0, 0.0), 1.0).normalizer(3)


@pytest.mark.parametrize("content", [{}, {"mean": 0.0}, {"mean": 0.0, "std": 1.0, "of": "somebody"}, [0.0, 1.0], "0.1"])
def test_what_an_artifact_may_not_hold_is_refused(content: Any) -> None:
    with pytest.raises(ValueError, match="are a mean and a std, got"):
        LatentStats.from_dict(content)


def test_it_says_its_numbers_or_their_range() -> None:
    assert str(LatentStats(-0.0031928, 0.0723526)) == "mean -0.003193, std 0.07235"
    assert str(LatentStats((0.0, 2.0), (1.0, 3.0))) == "mean 0 to 2 over 2 channels, std 1 to 3 over 2 channels"
