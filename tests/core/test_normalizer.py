"""Normalizer: its statistics, its way back, and its state."""

import pytest
import torch

from ldbench.core.normalizer import Normalizer


def test_normalized_latents_have_no_mean_and_deviation_one_in_each_channel():
    z = torch.randn(50, 7, 3) * torch.tensor([0.1, 1.0, 9.0]) + torch.tensor([5.0, 0.0, -2.0])
    flat = z.flatten(0, 1)
    normalizer = Normalizer.from_stats(flat.mean(0), flat.std(0), channels=3)
    normalized = normalizer.normalize(z)
    torch.testing.assert_close(normalized.mean(dim=(0, 1)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(normalized.flatten(0, 1).std(0), torch.ones(3))
    torch.testing.assert_close(normalizer.denormalize(normalized), z, atol=1e-5, rtol=1e-5)


def test_statistics_come_by_channel_as_a_map_or_as_one_number():
    by_map = Normalizer.from_stats(torch.ones(1, 3, 1, 1), torch.full((1, 3, 1, 1), 2.0), channels=3, multiplier=0.5)
    by_number = Normalizer.from_stats(1.0, 2.0, channels=3, multiplier=0.5)
    z = torch.randn(2, 4, 3)
    assert torch.equal(by_map.normalize(z), by_number.normalize(z))
    torch.testing.assert_close(by_map.normalize(z), (z - 1) / 2 * 0.5)


def test_a_scale_multiplies():
    z = torch.randn(2, 4, 4)
    torch.testing.assert_close(Normalizer.from_scale(0.18215, channels=4).normalize(z), z * 0.18215)


def test_statistics_travel_with_the_state_and_change_nothing_before_they_came():
    z = torch.randn(2, 4, 3)
    fresh = Normalizer(3)
    assert torch.equal(fresh.normalize(z), z)
    fresh.load_state_dict(Normalizer.from_stats(torch.arange(3.0), 2.0, channels=3).state_dict())
    torch.testing.assert_close(fresh.denormalize(z), z * 2 + torch.arange(3.0))


def test_statistics_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="std is of 4 channels, but these latents have 3"):
        Normalizer.from_stats(0.0, torch.ones(4), channels=3)
    with pytest.raises(ValueError, match=r"finite and above zero. It is 0 in channel 1, where the mean is 0; 1 of 3"):
        Normalizer.from_stats(0.0, torch.tensor([1.0, 0.0, 1.0]), channels=3)
    with pytest.raises(ValueError, match="scale of latents must be above zero"):
        Normalizer.from_scale(0.0, channels=3)
