"""A tokenizer whose latents are told in standard deviations of their channels, so that figures of several can be compared."""

import torch
from torch import Tensor

from ldbench.core.latent import LatentSpec
from ldbench.core.tokenizer import Tokenizer


class Standardised:
    """Encodes to posterior means over sigma, and decodes such. Channels that never change keep their own unit. No gradients, float32."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        sigma: Tensor,  # (C,): the standard deviation of each channel over the data set
        device: torch.device,
    ):
        self.tokenizer = tokenizer.to(device).eval().requires_grad_(False)
        self.latent: LatentSpec = tokenizer.latent
        self.sigma = sigma.to(device, torch.float32)
        self.unit = torch.where(self.sigma > 0, self.sigma, 1.0)
        self.device = device

    def encode(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
    ) -> Tensor:  # (B, N, C)
        """Posterior means in standard deviations."""
        return self.tokenizer.encode(images.to(self.device)).mean.float() / self.unit

    def decode(
        self,
        z: Tensor,  # (B, N, C)
    ) -> Tensor:  # (B, 3, H, W), not clamped
        """Images of latents in standard deviations."""
        return self.tokenizer.decode(z * self.unit).float()

    def encode_map(self, images: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, h, w)
        """`encode`, laid out on the latent's grid."""
        return self.latent.to_map(self.encode(images))

    def decode_map(self, maps: Tensor) -> Tensor:  # (B, C, h, w) -> (B, 3, H, W)
        """`decode` of what `encode_map` gave."""
        return self.decode(self.latent.from_map(maps))


def drawn_noise(
    shape: torch.Size,  # of one item
    *,
    seed: int,
    places: range,  # of the items in their set
) -> Tensor:  # (B, *shape)
    """Standard normal noise of each item, from the seed and its place alone: no batch size shows."""
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed + place)) for place in places])
