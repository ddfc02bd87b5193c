"""Auxiliary decoders: predict a teacher's features of the unmasked image, or its class, from the latent.

Exported artifacts do not contain them.

[0] Chen et al., Masked Autoencoders Are Effective Tokenizers for Diffusion Models (MAETok), 2025,
https://arxiv.org/abs/2502.03444
[1] Wei et al., Masked Feature Prediction for Self-Supervised Visual Pre-Training, 2022,
https://arxiv.org/abs/2112.09133 (HOG targets)
"""

from dataclasses import asdict, dataclass
from typing import ClassVar, Literal

import torch
from einops import reduce
from torch import Tensor, nn
from torch.nn import functional as F

from ldbench.core.distributed import mean_over_ranks
from ldbench.core.interfaces import Teacher
from ldbench.core.latent import LatentSpec
from ldbench.core.tokenizer import Reconstruction
from ldbench.layers.query import ModulationStart, QueryDecoder
from ldbench.losses.base_term import BaseTerm


class Features(BaseTerm):
    """The distance between the features that a small decoder predicts from the latent and a teacher's, per patch (eq. 8
    of [0]).

    `tokens`: `masked` averages over hidden patches, or all of them if none is hidden; `all` always averages over every
    patch. `modulation_start`, `linear_std`, `token_std`: the decoder's initialization, see `QueryDecoder`. `distance`:
    `mse` (the paper) or `negative_cosine` (the official code, for DINO and CLIP; between -1 and 1). Raises ValueError
    for a teacher that does not support the patch grid.
    """

    revision: ClassVar[int] = 1

    def __init__(
        self,
        *,
        weight: float,
        start: int,
        warmup: int,
        teacher: Teacher,
        tokens: Literal["masked", "all"],
        distance: Literal["mse", "negative_cosine"],
        width: int,
        depth: int,
        num_heads: int,
        modulation_start: ModulationStart,
        linear_std: float,
        token_std: float,
        latent: LatentSpec,
        patch_grid: tuple[int, int],
        image_size: int,
    ):
        super().__init__(weight=weight, start=start, warmup=warmup)
        if tokens not in ("masked", "all"):
            raise ValueError(f"Unknown tokens {tokens!r}. Choose masked or all.")
        if distance not in DISTANCES:
            raise ValueError(f"Unknown distance {distance!r}. Choose {' or '.join(DISTANCES)}.")
        self.teacher = teacher
        self.tokens = tokens
        self.distance = DISTANCES[distance]
        self.grid = patch_grid
        shape = DecoderShape(width, depth, num_heads, modulation_start, linear_std, token_std)
        self.decoder = shape.build(latent, patch_grid)
        self.head = nn.Linear(width, teacher.channels(image_size, patch_grid))

    def forward(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
        recon: Reconstruction,
        y: Tensor,  # (B,)
    ) -> Tensor:
        """The loss of a batch."""
        return self.average(self.errors(self.predict(recon), self.targets(images, y)), recon)

    def predict(self, recon: Reconstruction) -> Tensor:  # (B, P, channels)
        """The predicted features of every patch."""
        tokens = self.decoder(recon.z, kept=recon.kept)[:, -self.grid[0] * self.grid[1] :]
        return self.head(tokens)

    def targets(self, images: Tensor, y: Tensor) -> Tensor:  # (B, P, channels)
        """The teacher's features of every patch."""
        return self.teacher(images, self.grid)

    def errors(self, predicted: Tensor, targets: Tensor) -> Tensor:  # (B, P)
        """The distance of every patch."""
        return self.distance(predicted, targets)

    def average(self, errors: Tensor, recon: Reconstruction) -> Tensor:
        """The mean over the selected patches."""
        if self.tokens == "all" or recon.mask is None:
            return errors.mean()
        return (errors * recon.mask).sum() / mean_over_ranks(recon.mask.sum())

    def constant(self, targets: Tensor) -> Tensor:  # (1, P, channels)
        """The best prediction without an image: the mean target of each patch."""
        return targets.mean(dim=0, keepdim=True)


class Classes(BaseTerm):
    """The cross-entropy of the class that a small decoder predicts from the latent, in nats.

    The supervised auxiliary decoder mentioned in [0]; the official code has a flag for it without an implementation.
    """

    revision: ClassVar[int] = 1

    def __init__(
        self,
        *,
        weight: float,
        start: int,
        warmup: int,
        width: int,
        depth: int,
        num_heads: int,
        modulation_start: ModulationStart,
        linear_std: float,
        token_std: float,
        latent: LatentSpec,
        num_classes: int,
    ):
        super().__init__(weight=weight, start=start, warmup=warmup)
        shape = DecoderShape(width, depth, num_heads, modulation_start, linear_std, token_std)
        self.decoder = shape.build(latent, (0, 0))
        self.head = nn.Linear(width, num_classes)

    def forward(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
        recon: Reconstruction,
        y: Tensor,  # (B,)
    ) -> Tensor:
        """The loss of a batch."""
        return self.average(self.errors(self.predict(recon), self.targets(images, y)), recon)

    def predict(self, recon: Reconstruction) -> Tensor:  # (B, num_classes)
        """The predicted logits of the classes."""
        return self.head(self.decoder(recon.z, kept=recon.kept)[:, 0])

    def targets(self, images: Tensor, y: Tensor) -> Tensor:  # (B,)
        """The classes."""
        return y

    def errors(self, predicted: Tensor, targets: Tensor) -> Tensor:  # (B,)
        """The cross-entropy of each image, in nats."""
        return F.cross_entropy(predicted.float(), targets, reduction="none")

    def average(self, errors: Tensor, recon: Reconstruction) -> Tensor:
        """The mean over the images."""
        return errors.mean()

    def constant(self, targets: Tensor) -> Tensor:  # (1, num_classes)
        """The best prediction without an image: the logarithm of each class's frequency."""
        counts = torch.bincount(targets, minlength=self.head.out_features)
        return (counts / counts.sum()).clamp(min=1e-6).log()[None]


@dataclass(frozen=True)
class DecoderShape:
    """The sizes and initialization of a decoder like the official ones (class token, rotary positions, theta 10)."""

    width: int
    depth: int
    num_heads: int
    modulation_start: ModulationStart
    linear_std: float
    token_std: float

    def build(self, latent: LatentSpec, grid: tuple[int, int]) -> QueryDecoder:
        """The decoder that reads latents at the positions of a grid."""
        return QueryDecoder(
            **asdict(self),
            num_tokens=latent.num_tokens,
            latent_channels=latent.channels,
            grid=grid,
            mlp_ratio=4.0,
            rope_theta=10.0,
            class_token=True,
        )


def squared(
    predicted: Tensor,  # (B, P, channels)
    target: Tensor,  # (B, P, channels)
) -> Tensor:  # (B, P)
    """The mean squared difference of the features at each position."""
    return reduce((predicted.float() - target.float()).square(), "b p c -> b p", "mean")


def negative_cosine(
    predicted: Tensor,  # (B, P, channels)
    target: Tensor,  # (B, P, channels)
) -> Tensor:  # (B, P)
    """The negative cosine similarity of the features at each position."""
    return -F.cosine_similarity(predicted.float(), target.float(), dim=-1)


DISTANCES = {"mse": squared, "negative_cosine": negative_cosine}
