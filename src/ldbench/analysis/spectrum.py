"""Spectrum: how the power of latents on a grid is spread over spatial frequencies.

[0] Skorokhodov et al., Improving the Diffusability of Autoencoders, 2025, https://arxiv.org/abs/2502.14831
"""

from dataclasses import dataclass

import torch
from torch import Tensor

HIGH = 0.25  # cycles per cell: half of the highest frequency that a grid carries along a side


@dataclass(frozen=True)
class Spectrum:
    """Power without that of the mean; frequencies in cycles per cell."""

    frequency: Tensor  # (K,) float64: the centres of rings 1 / max(h, w) wide
    power: Tensor  # (K,) float64: the mean over the frequencies of a ring, the channels and the maps
    high: Tensor  # (n,) float64: the power of each map above HIGH
    total: Tensor  # (n,) float64: the power of each map, which is its variance over places, summed over channels
    slope: (
        float | None
    )  # of log power over log frequency: 0 for noise, -2 for natural images; None where a frequency has no power


def spectrum(
    maps: Tensor,  # (n, C, h, w)
) -> Spectrum:
    """The power of each map by the discrete Fourier transform. A latent with much of it at high frequencies is hard for diffusion [0].

    Raises ValueError for maps of a single place.
    """
    height, width = maps.shape[2:]
    if height * width < 2:
        raise ValueError(f"A map of {height}x{width} has no frequencies.")
    power = (
        torch.fft.fft2(maps.double()).abs() / (height * width)
    ).square()  # (n, C, h, w), summing to the mean square of a channel
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
    """Of the least-squares line through all frequencies on logarithmic axes; None where there are not two frequencies, or one has no power."""
    centred = log_frequency - log_frequency.mean()
    if centred.square().sum() < 1e-12 or (power <= 1e-24 * power.max()).any():
        return None
    return (centred @ power.log() / centred.square().sum()).item()
