"""A tokenizer with latents in units of their channels' standard deviations, so that metrics of several can be
compared.
"""

import torch
from torch import Tensor

from ldbench.core.latent import LatentSpec
from ldbench.core.tokenizer import Tokenizer


class StandardizedTokenizer:
    """Encodes to posterior means over sigma, and decodes these. Constant channels keep their unit.

    No gradients, float32.
    """

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
        """Posterior means in units of standard deviations."""
        return self.tokenizer.encode(images.to(self.device)).mean.float() / self.unit

    def decode(
        self,
        z: Tensor,  # (B, N, C)
    ) -> Tensor:  # (B, 3, H, W), not clamped
        """Images of latents in units of standard deviations."""
        return self.tokenizer.decode(z * self.unit).float()

    def encode_map(self, images: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, h, w)
        """`encode`, on the latent's grid."""
        return self.latent.to_map(self.encode(images))

    def decode_map(self, maps: Tensor) -> Tensor:  # (B, C, h, w) -> (B, 3, H, W)
        """The inverse of `encode_map`."""
        return self.decode(self.latent.from_map(maps))
