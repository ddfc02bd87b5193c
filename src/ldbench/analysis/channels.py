"""Channels: how much of the variance of sampled latents is signal of the image, and which channels have collapsed.

[0] Burda et al., Importance Weighted Autoencoders, 2016, https://arxiv.org/abs/1509.00519 (active units, appendix C)
[1] Lucas et al., Don't Blame the ELBO! A Linear VAE Perspective on Posterior Collapse, 2019,
    https://arxiv.org/abs/1911.02469
"""

from dataclasses import dataclass

import torch
from torch import Tensor

CONSTANT = 1e-8  # share of the largest variance below which a number counts as constant


@dataclass(frozen=True)
class Channels:
    """Variance of each number (unit) of a latent, (N, C) float64."""

    signal: Tensor  # of the posterior mean over images; differences between tokens alone are no signal
    noise: Tensor  # of the posterior around it, averaged over images; zero for points

    def snr_db(self) -> Tensor:
        """Signal-to-noise ratio of each channel in decibels, (C,), of powers averaged over tokens; infinite for
        points.
        """
        return 10 * (self.signal.mean(dim=0) / self.noise.mean(dim=0)).log10()

    def collapsed_units(self, threshold: float) -> Tensor:
        """Mask (N, C) of collapsed units: the image explains less than `threshold` of their variance, or they are
        constant.
        """
        return collapsed(self.signal, self.noise, threshold)

    def collapsed_channels(self, threshold: float) -> Tensor:
        """Mask (C,) of collapsed channels, over all tokens together."""
        return collapsed(self.signal.mean(dim=0), self.noise.mean(dim=0), threshold)


def channels(
    mean: Tensor,  # (n, N, C) posterior means of images
    logvar: Tensor | None,  # (n, N, C); None: points
) -> Channels:
    """Signal and noise variance of sampled latents.

    Raises ValueError for fewer than two images, and for latents that are not finite.
    """
    if len(mean) < 2:
        raise ValueError(f"Variance over images needs at least two images, got {len(mean)}.")
    if not torch.isfinite(mean).all() or (logvar is not None and not torch.isfinite(logvar).all()):
        raise ValueError("The latents contain NaN or infinity. Check the tokenizer before measuring it.")
    signal = mean.double().var(dim=0, correction=0)
    return Channels(
        signal=signal, noise=torch.zeros_like(signal) if logvar is None else logvar.double().exp().mean(dim=0)
    )


def collapsed(signal: Tensor, noise: Tensor, threshold: float) -> Tensor:
    """Mask of collapsed units.

    [0] calls a unit active if its mean has variance above 0.01 under a prior of variance 1; a share of its own variance
    needs no prior [1].
    """
    constant = signal <= CONSTANT * signal.max()
    return constant | (signal < threshold * (signal + noise))
