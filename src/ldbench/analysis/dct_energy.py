"""Energy of the discrete cosine transform: how much of latents on a grid is at high spatial frequencies.

[0] Zhong et al., Diffusing in the Right Space: A Systematic Study of Latent Diffusability, 2026,
    https://arxiv.org/abs/2606.03578 (spectral energy by Manhattan frequency)
[1] Ahmed et al., Discrete Cosine Transform, 1974, https://doi.org/10.1109/T-C.1974.223784
"""

import math

import torch
from torch import Tensor

ROUNDING = 1e-9  # of a share of a whole number


def dct_energy(
    maps: Tensor,  # (n, C, H, W)
) -> Tensor:  # (n, H, W) float64
    """The squared coefficients of the orthonormal transform of each map, summed over channels: their sum is that of the
    squared map.

    Unlike the Fourier transform [0], it does not see the jump between opposite borders as high frequencies.
    """
    coefficients = dct_matrix(maps.shape[2]).to(maps.device) @ maps.double()
    coefficients = coefficients @ dct_matrix(maps.shape[3]).to(maps.device).T
    return coefficients.square().sum(dim=1)


def share_beyond(
    energy: Tensor,  # (n, H, W)
    rho: float,
) -> Tensor:  # (n,)
    """The share of each map's energy at Manhattan frequencies u + v above rho (H + W - 2) [0], the largest of which is
    H + W - 2. It is 0 for a map of zeros.
    """
    height, width = energy.shape[1:]
    frequency = torch.arange(height)[:, None] + torch.arange(width)[None]
    high = energy * (frequency > rho * (height + width - 2) + ROUNDING).to(energy)
    total = energy.sum(dim=(1, 2))
    return high.sum(dim=(1, 2)) / total.where(total > 0, 1.0)


def dct_matrix(size: int) -> Tensor:  # (size, size) float64
    """The orthonormal type-II transform [1]: row u is the wave of frequency u."""
    positions, frequencies = torch.arange(size, dtype=torch.float64) + 0.5, torch.arange(size, dtype=torch.float64)
    waves = torch.cos(math.pi / size * torch.outer(frequencies, positions)) * math.sqrt(2 / size)
    waves[0] /= math.sqrt(2)
    return waves
