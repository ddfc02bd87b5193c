"""Channels: signal and noise are told apart, and planted dead channels are found, all of them and no others."""

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


def test_signal_to_noise_is_told_in_decibel() -> None:
    told = channels(*planted())
    snr = told.snr_db()
    torch.testing.assert_close(snr[[0, 1, 4]], torch.tensor([20.0, 20.0, 0.0], dtype=torch.float64), atol=0.3, rtol=0)
    assert snr[2] < -50
    assert snr[3] == -torch.inf


def test_planted_dead_channels_are_found_and_no_others() -> None:
    told = channels(*planted())
    assert told.collapsed_channels(0.01).tolist() == [False, False, True, True, False]
    assert told.collapsed_units(0.01).sum() == 12


def test_a_number_that_is_dead_at_some_tokens_only_is_no_dead_channel() -> None:
    mean = normal(200, 4, 2)
    mean[:, :3, 1] = 0.0
    told = channels(mean, torch.full_like(mean, -6.0))
    assert told.collapsed_channels(0.01).tolist() == [False, False]
    assert told.collapsed_units(0.01).tolist() == [[False, True]] * 3 + [[False, False]]


def test_points_collapse_where_they_stand_still() -> None:
    mean, _ = planted()
    told = channels(mean, None)
    assert told.collapsed_channels(0.01).tolist() == [False, False, False, True, False]
    assert torch.isinf(told.snr_db()[:3]).all()


def test_a_latent_in_which_nothing_moves_has_collapsed_whole() -> None:
    assert channels(torch.ones(3, 2, 2), None).collapsed_channels(0.01).all()


def test_one_image_and_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="two or more, got 1"):
        channels(torch.ones(1, 2, 2), None)
    with pytest.raises(ValueError, match="not finite"):
        channels(torch.ones(3, 2, 2), torch.full((3, 2, 2), torch.nan))
