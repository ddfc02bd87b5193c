"""Channels: how much of what is sampled in a latent's channel is of the image, and which channels hold nothing of it.

[0] Burda et al., Importance Weighted Autoencoders, 2016, https://arxiv.org/abs/1509.00519 (active units, appendix C)
[1] Lucas et al., Don't Blame the ELBO! A Linear VAE Perspective on Posterior Collapse, 2019, https://arxiv.org/abs/1911.02469
"""

from dataclasses import dataclass

import torch
from torch import Tensor

STILL = 1e-8  # the share of the liveliest number's variance below which a number does not change at all


@dataclass(frozen=True)
class Channels:
    """Variance of each number of a latent, (N, C) float64."""

    signal: Tensor  # of the posterior mean, over images: a mean that differs from token to token alone is no signal
    noise: Tensor  # of the posterior around it, averaged over images; zero for points

    def snr_db(self) -> Tensor:
        """Signal to noise of each channel in decibel, (C,): power averaged over tokens; infinite for points."""
        return 10 * (self.signal.mean(dim=0) / self.noise.mean(dim=0)).log10()

    def collapsed_units(self, threshold: float) -> Tensor:
        """Which numbers (N, C) have collapsed: the image tells less than `threshold` of their variance, or they do not change at all."""
        return collapsed(self.signal, self.noise, threshold)

    def collapsed_channels(self, threshold: float) -> Tensor:
        """Which channels (C,) have collapsed, in all tokens together."""
        return collapsed(self.signal.mean(dim=0), self.noise.mean(dim=0), threshold)


def channels(
    mean: Tensor,  # (n, N, C) posterior means of images
    logvar: Tensor | None,  # (n, N, C); None: points
) -> Channels:
    """The two parts of the variance of sampled latents. Raises ValueError for fewer than two images, and for numbers that are not finite."""
    if len(mean) < 2:
        raise ValueError(f"Variance over images needs two or more, got {len(mean)}.")
    if not torch.isfinite(mean).all() or (logvar is not None and not torch.isfinite(logvar).all()):
        raise ValueError(
            "Latents hold numbers that are not finite (NaN or infinity). Look at the tokenizer before measuring it."
        )
    signal = mean.double().var(dim=0, correction=0)
    return Channels(
        signal=signal, noise=torch.zeros_like(signal) if logvar is None else logvar.double().exp().mean(dim=0)
    )


def collapsed(signal: Tensor, noise: Tensor, threshold: float) -> Tensor:
    """[0] calls a unit active whose mean varies by more than 0.01 where the prior has variance 1; a share of its own variance needs no prior [1]."""
    still = signal <= STILL * signal.max()
    return still | (signal < threshold * (signal + noise))
