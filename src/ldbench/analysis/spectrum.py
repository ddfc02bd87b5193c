"""Spectrum: how the power of latents on a grid is distributed over spatial frequencies.

[0] Skorokhodov et al., Improving the Diffusability of Autoencoders, 2025, https://arxiv.org/abs/2502.14831
"""

from dataclasses import dataclass

import torch
from torch import Tensor

HIGH = 0.25  # cycles per cell: half of the Nyquist frequency along a side


@dataclass(frozen=True)
class Spectrum:
    """Power without that of the mean; frequencies in cycles per cell."""

    frequency: Tensor  # (K,) float64: the centers of rings of width 1 / max(h, w)
    power: Tensor  # (K,) float64: mean over the frequencies of a ring, channels and maps
    high: Tensor  # (n,) float64: power of each map above HIGH
    total: Tensor  # (n,) float64: power of each map: its variance over positions, summed over channels
    # of log power over log frequency: 0 for noise, -2 for natural images; None if a frequency has no power
    slope: float | None


def spectrum(
    maps: Tensor,  # (n, C, h, w)
) -> Spectrum:
    """The power spectrum of maps by the discrete Fourier transform.

    Much power at high frequencies makes latents hard for diffusion [0].

    Raises ValueError for maps of a single position.
    """
    height, width = maps.shape[2:]
    if height * width < 2:
        raise ValueError(f"A map of {height}x{width} has no frequencies.")
    # (n, C, h, w), with the mean square of a channel as its sum
    power = (torch.fft.fft2(maps.double()).abs() / (height * width)).square()
    frequency = torch.hypot(
        torch.fft.fftfreq(height, dtype=torch.float64)[:, None],
        torch.fft.fftfreq(width, dtype=torch.float64)[None],
    ).to(maps.device)
    varies = frequency > 0
    mean = power.mean(dim=(0, 1))[varies]  # (h w - 1,)
    ring = (frequency[varies] * max(height, width)).round().long()
    rings = ring.unique()
    return Spectrum(
        frequency=rings.double() / max(height, width),
        power=torch.stack([mean[ring == one].mean() for one in rings]),
        high=(power * (frequency > HIGH)).sum(dim=(1, 2, 3)),
        total=(power * varies).sum(dim=(1, 2, 3)),
        slope=slope(frequency[varies].log(), mean),
    )


def slope(
    log_frequency: Tensor,  # (F,)
    power: Tensor,  # (F,)
) -> float | None:
    """The slope of the least-squares line on logarithmic axes; None for fewer than two frequencies, or if one has no
    power.
    """
    centered = log_frequency - log_frequency.mean()
    if centered.square().sum() < 1e-12 or (power <= 1e-24 * power.max()).any():
        return None
    return (centered @ power.log() / centered.square().sum()).item()
