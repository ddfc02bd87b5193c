"""Channels: signal and noise are separated, and exactly the planted dead channels are found."""

import pytest
import torch

from ldbench.analysis.channels import channels


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def planted() -> tuple[torch.Tensor, torch.Tensor]:
    """Live at 20 dB; live and tiny; noise only; the same for every image though not for every token; at 0 dB."""
    mean = normal(500, 6, 5) * torch.tensor([1.0, 1e-2, 1e-3, 0.0, 1.0])
    mean[..., 3] = torch.arange(6.0)
    std = torch.tensor([0.1, 1e-3, 1.0, 0.1, 1.0])
    return mean, (2 * std.log()).expand(500, 6, 5)


def test_signal_to_noise_is_in_decibels() -> None:
    found = channels(*planted())
    snr = found.snr_db()
    torch.testing.assert_close(snr[[0, 1, 4]], torch.tensor([20.0, 20.0, 0.0], dtype=torch.float64), atol=0.3, rtol=0)
    assert snr[2] < -50
    assert snr[3] == -torch.inf


def test_planted_dead_channels_are_found_and_no_others() -> None:
    found = channels(*planted())
    assert found.collapsed_channels(0.01).tolist() == [False, False, True, True, False]
    assert found.collapsed_units(0.01).sum() == 12


def test_a_unit_that_is_dead_at_some_tokens_only_is_no_dead_channel() -> None:
    mean = normal(200, 4, 2)
    mean[:, :3, 1] = 0.0
    found = channels(mean, torch.full_like(mean, -6.0))
    assert found.collapsed_channels(0.01).tolist() == [False, False]
    assert found.collapsed_units(0.01).tolist() == [[False, True]] * 3 + [[False, False]]


def test_points_collapse_where_they_are_constant() -> None:
    mean, _ = planted()
    found = channels(mean, None)
    assert found.collapsed_channels(0.01).tolist() == [False, False, False, True, False]
    assert torch.isinf(found.snr_db()[:3]).all()


def test_a_constant_latent_has_collapsed_completely() -> None:
    assert channels(torch.ones(3, 2, 2), None).collapsed_channels(0.01).all()


def test_one_image_and_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="at least two images, got 1"):
        channels(torch.ones(1, 2, 2), None)
    with pytest.raises(ValueError, match="NaN or infinity"):
        channels(torch.ones(3, 2, 2), torch.full((3, 2, 2), torch.nan))
