"""What a decoder is trained to survive: noise on latents, and latent tokens that a learned vector replaces.

[0] Yang et al., Latent Denoising Makes Good Visual Tokenizers (l-DeTok), 2025, https://arxiv.org/abs/2507.15856
[1] Zheng et al., Diffusion Transformers with Representation Autoencoders (RAE), 2025, https://arxiv.org/abs/2510.11690
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ldbench.core.distributed import draw_for_global_batch, normal_like
from ldbench.layers.masking import count_hidden, hide_highest


@dataclass(frozen=True)
class LatentNoise:
    """Normal noise of a strength s that is uniform in [0, `strength`] for each image; 0: none.

    `interpolative`: (1 - s) z + s * scale * noise [0] (strength 1, scale 3). `additive`: z + s * scale * noise [1]
    (strength 0.8, scale 1). Raises ValueError for an unknown kind, and for numbers out of range.
    """

    strength: float = 0.0
    kind: Literal["interpolative", "additive"] = "additive"
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in ("interpolative", "additive"):
            raise ValueError(f"latent_noise.kind must be interpolative or additive, got {self.kind!r}.")
        if self.strength < 0 or (self.kind == "interpolative" and self.strength > 1):
            bounds = "in [0, 1]" if self.kind == "interpolative" else "at least 0"
            raise ValueError(f"latent_noise.strength must be {bounds} for {self.kind} noise, got {self.strength}.")
        if self.scale <= 0:
            raise ValueError(f"latent_noise.scale must be above 0, got {self.scale}. strength=0 is no noise.")

    @property
    def active(self) -> bool:
        """Whether it changes latents."""
        return self.strength > 0

    def __call__(
        self,
        z: Tensor,  # (B, N, C)
    ) -> Tensor:  # (B, N, C)
        """The noisy latents, drawn from torch's global stream: first the strengths, then the noise."""
        strength = self.strength * draw_for_global_batch(
            lambda count: torch.rand(count, 1, 1, dtype=z.dtype, device=z.device), len(z)
        )
        kept = z if self.kind == "additive" else (1 - strength) * z
        return kept + strength * self.scale * normal_like(z)


@dataclass(frozen=True)
class TokenMask:
    """The share of an image's latent tokens that is replaced: max(0, uniform in [`least`, `largest`]) for each batch.

    `largest` 0: none. [0]: -0.1 and 0.7. Raises ValueError for numbers out of range.
    """

    largest: float = 0.0
    least: float = -0.1

    def __post_init__(self) -> None:
        if not 0 <= self.largest < 1:
            raise ValueError(f"token_mask.largest must lie in [0, 1), got {self.largest}.")
        if self.least > self.largest:
            raise ValueError(f"token_mask.least must be at most largest={self.largest}, got {self.least}.")

    @property
    def active(self) -> bool:
        """Whether it replaces tokens."""
        return self.largest > 0

    def draw(self) -> float:
        """The share of a batch, from torch's global stream."""
        return max(0.0, self.least + (self.largest - self.least) * torch.rand((), dtype=torch.float64).item())


class LatentCorruption(nn.Module):
    """Noise on latents, then tokens replaced by one learned vector, which starts at zero. Of training alone."""

    def __init__(self, *, noise: LatentNoise, mask: TokenMask, channels: int):
        super().__init__()
        self.noise = noise
        self.mask = mask
        self.vector = nn.Parameter(torch.zeros(channels)) if mask.active else None

    @torch.compiler.disable  # the share differs in every batch and would trigger recompilation
    def forward(
        self,
        z: Tensor,  # (B, N, C)
    ) -> Tensor:  # (B, N, C)
        """The corrupted latents."""
        if self.noise.active:
            z = self.noise(z)
        if self.vector is None:
            return z
        count = count_hidden(torch.as_tensor(self.mask.draw(), dtype=torch.float64), z.shape[1])
        order = draw_for_global_batch(lambda size: torch.rand(size, z.shape[1], device=z.device), len(z))
        hidden = hide_highest(order, count.to(z.device))
        return torch.where(hidden[..., None], self.vector.to(z.dtype), z)
