"""Spectrum: power sums to the variance, and waves, noise and power laws are identified."""

import math

import pytest
import torch

from ldbench.analysis.spectrum import spectrum


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_power_is_the_variance_over_positions() -> None:
    maps = normal(5, 3, 6, 6) + 7
    torch.testing.assert_close(spectrum(maps).total, maps.var(dim=(2, 3), correction=0).sum(dim=1))


def test_a_wave_has_all_its_power_at_its_frequency() -> None:
    wave = torch.cos(2 * math.pi * 3 / 16 * torch.arange(16, dtype=torch.float64)).expand(1, 1, 16, 16)
    found = spectrum(wave)
    assert found.frequency[found.power.argmax()].item() == pytest.approx(3 / 16)
    torch.testing.assert_close(found.high, torch.zeros(1, dtype=torch.float64))
    faster = spectrum(torch.cos(2 * math.pi * 5 / 16 * torch.arange(16, dtype=torch.float64)).expand(1, 1, 16, 16))
    torch.testing.assert_close(faster.high, faster.total)


def test_noise_is_flat_and_its_high_share_is_that_of_the_frequencies() -> None:
    found = spectrum(normal(400, 4, 8, 8))
    frequency = torch.hypot(torch.fft.fftfreq(8)[:, None], torch.fft.fftfreq(8)[None])
    assert abs(found.slope) < 0.05
    assert (found.high.sum() / found.total.sum()).item() == pytest.approx(
        ((frequency > 0.25).sum() / 63).item(), rel=0.02
    )


@pytest.mark.parametrize("exponent", [-1.0, -2.0])
def test_a_power_law_is_its_slope(exponent: float) -> None:
    frequency = torch.hypot(
        torch.fft.fftfreq(16, dtype=torch.float64)[:, None], torch.fft.fftfreq(16, dtype=torch.float64)[None]
    )
    amplitude = torch.where(frequency > 0, frequency, 1.0) ** (exponent / 2)
    noise = torch.fft.fft2(normal(2, 3, 16, 16))
    planted = torch.fft.ifft2(noise / noise.abs() * amplitude).real
    found = spectrum(planted)
    assert found.slope == pytest.approx(exponent, abs=1e-9)


def test_constant_maps_have_no_slope() -> None:
    found = spectrum(torch.full((2, 1, 4, 4), 3.0))
    assert found.slope is None
    assert found.total.sum() == 0


def test_a_single_position_is_refused() -> None:
    with pytest.raises(ValueError, match="1x1 has no frequencies"):
        spectrum(torch.zeros(1, 2, 1, 1))
