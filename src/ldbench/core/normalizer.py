"""Normalizer: latents at the scale that a generator is trained on, and back.

[0] Rombach et al., Latent Diffusion Models, 2022, https://arxiv.org/abs/2112.10752 (section G: 0.18215)
[1] Yao et al., Reconstruction vs. Generation, 2025, https://arxiv.org/abs/2501.01423 (mean and std of each channel)
"""

import torch
from torch import Tensor, nn

Values = Tensor | float | tuple[float, ...]


class Normalizer(nn.Module):
    """(z - mean) / std for each channel; the identity until statistics are given or loaded,
    which are part of the state dict.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    @classmethod
    def from_stats(
        cls,
        mean: Values,  # (C,), [1, C, 1, 1] as in LightningDiT's latents_stats.pt, or one number
        std: Values,
        *,
        channels: int,
        multiplier: float = 1.0,  # of the normalized latents
    ) -> "Normalizer":
        """The normalizer of measured statistics.

        Raises ValueError for another number of channels, or std not above zero, naming the channels.
        """
        normalizer = cls(channels)
        normalizer.mean.copy_(as_channels("mean", mean, channels))
        normalizer.std.copy_(as_channels("std", std, channels) / multiplier)
        valid = torch.isfinite(normalizer.mean) & torch.isfinite(normalizer.std) & (normalizer.std > 0)
        if not valid.all():
            wrong = (~valid).nonzero().flatten().tolist()
            channel = wrong[0]
            raise ValueError(
                f"Latents are divided by their std, which must be finite and above zero. It is "
                f"{float(normalizer.std[channel]):.4g} in channel {channel}, where the mean is "
                f"{float(normalizer.mean[channel]):.4g}; {len(wrong)} of {channels} channels are so. A channel that "
                "never changes holds nothing to learn: train the tokenizer longer, or with fewer channels."
            )
        return normalizer

    @classmethod
    def from_scale(cls, scale: float, *, channels: int) -> "Normalizer":
        """The normalizer that multiplies by one number, such as 0.18215 [0].

        Raises ValueError unless it is above zero.
        """
        if not scale > 0:
            raise ValueError(f"A scale of latents must be above zero, got {scale}.")
        return cls.from_stats(0.0, 1.0, channels=channels, multiplier=scale)

    def normalize(
        self,
        z: Tensor,  # (B, N, C)
    ) -> Tensor:  # (B, N, C)
        """The raw latents of a tokenizer at the generator's scale."""
        return (z - self.mean) / self.std

    def denormalize(
        self,
        z: Tensor,  # (B, N, C)
    ) -> Tensor:  # (B, N, C)
        """The latents of a generator at the tokenizer's scale."""
        return z * self.std + self.mean


def as_channels(name: str, value: Values, channels: int) -> Tensor:
    """One number for each channel. Raises ValueError for another count."""
    flat = torch.as_tensor(value, dtype=torch.float64).flatten()
    if flat.numel() not in (1, channels):
        raise ValueError(
            f"The {name} is of {flat.numel()} channels, but these latents have {channels}. "
            "Use the statistics of this tokenizer."
        )
    return flat.expand(channels)
