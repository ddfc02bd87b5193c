"""Tokenizer: image <-> latent. The base class of every plug-in in `tokenizers/`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ldbench.core.latent import LatentSpec
from ldbench.core.latent_stats import LatentStats
from ldbench.core.posterior import Posterior

LARGEST = (
    64.0  # beyond any image in [-1, 1] with noise, or decoded by an untrained network; pixels of 8 bits are larger
)


Corruption = Callable[[Tensor], Tensor]  # latents (B, N, C) -> those that the decoder gets in their place


@dataclass(frozen=True)
class Quantization:
    """Latents from a codebook of K codes, with what loss terms need to know of them."""

    latents: Tensor  # (B, N, C)
    logits: Tensor  # (B, N, K): cosines with the codes, or minus the squared distances
    vectors: Tensor | None = None  # (B, N, C): what the nearest codes replace; None for mixtures of codes
    chosen: Tensor | None = None  # (B, N, C): these codes, with gradients to the codebook


@dataclass(frozen=True)
class Reconstruction:
    """One training pass of a tokenizer: the reconstructed images, the latent, and the mask."""

    images: Tensor  # (B, 3, H, W)
    z: Tensor  # (B, N_kept, C), before any corruption
    posterior: Posterior  # of the kept tokens
    mask: Tensor | None = None  # (B, P) bool, True = hidden from the encoder; None without masking
    patch_grid: tuple[int, int] | None = None  # (rows, columns) of the P patches, row-major; given whenever `mask` is
    kept: Tensor | None = None  # (B, N_kept) indices into the latent's N tokens; None when nothing was dropped
    quantization: Quantization | None = None  # of a tokenizer with a codebook


class Tokenizer(nn.Module, ABC):
    """An image tokenizer. Images are (B, 3, H, W) in [-1, 1], latents (B, N, C).

    A plug-in has the submodules `encoder` and `decoder`, so that a stage can freeze either, and raises `revision`
    when a change of its code changes its numbers.
    """

    revision: ClassVar[int] = 1
    encoder: nn.Module
    decoder: nn.Module
    image_size: int
    overflows_in_fp16: bool = False  # whether its weights need more than half precision
    latent_stats: LatentStats | None = None  # by which its authors normalize latents; `encode` does not

    @property
    def title(self) -> str:
        """The name of its family in messages."""
        return type(self).__name__

    @property
    @abstractmethod
    def latent(self) -> LatentSpec:
        """The latent of an image of `image_size`."""

    @property
    def patch_grid(self) -> tuple[int, int]:
        """Rows and columns of the grid of masks and target features: the latent's own, unless overridden."""
        if self.latent.grid is None:
            raise ValueError(
                f"The latents of {type(self).__name__} have no grid, and it defines no other: "
                "give it a property patch_grid."
            )
        return self.latent.grid

    @abstractmethod
    def encode(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
    ) -> Posterior:
        """The posterior over the latent of each image. Raises ValueError for images of an unsupported size."""

    @abstractmethod
    def decode(
        self,
        z: Tensor,  # (B, N, C)
        grid: tuple[int, int] | None = None,
    ) -> Tensor:  # (B, 3, H, W), not clamped
        """The decoded images; `grid` for a latent of another size, where the tokenizer supports any size."""

    def forward(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
        *,
        mask_ratio: float | Tensor = 0.0,  # a number or (B,)
        mask_noise: Tensor | None = None,  # (B, P) in [0, 1): patches with the smallest noise stay visible
        eps: Tensor | None = None,  # (B, N_kept, C), or anything that broadcasts to it
        corruption: Corruption | None = None,  # between sampling and decoding, through `corrupt`
    ) -> Reconstruction:
        """The training pass: encodes, samples, corrupts and decodes. A tokenizer with masks has its own.

        Raises ValueError for a ratio above zero in a tokenizer without masking.
        """
        self.refuse_masks(mask_ratio)
        posterior = self.encode(images)
        z = posterior.sample(eps=eps)
        grid = self.latent_grid(images)
        decoded = self.decode(self.corrupt(z, corruption), grid)
        return Reconstruction(images=decoded, z=z, posterior=posterior, patch_grid=grid)

    def latent_grid(
        self,
        images: Tensor,  # (B, 3, H, W)
    ) -> tuple[int, int] | None:
        """Rows and columns of the latents of images, which may have another size; None for latents without a grid."""
        grid = self.latent.grid
        if grid is None:
            return None
        return images.shape[-2] * grid[0] // self.image_size, images.shape[-1] * grid[1] // self.image_size

    def corrupt(
        self,
        z: Tensor,  # (B, N, C)
        corruption: Corruption | None,
    ) -> Tensor:  # (B, N, C)
        """The latents that the decoder gets in a training pass: the corrupted ones, or `z` without a corruption."""
        return z if corruption is None else corruption(z)

    @abstractmethod
    def anchors(self) -> dict[str, nn.Parameter]:
        """The parameters at which adaptive weights compare gradients: the last of `encoder` and of `decoder`,
        where trainable.
        """

    def init_encoder(
        self,
        weights: Mapping[str, Tensor],  # of a vision transformer, in timm's layout
    ) -> None:
        """Starts the encoder from a vision transformer's weights. Raises ValueError where it is none, or of a size."""
        raise ValueError(
            f"The encoder of {type(self).__name__} cannot start from a vision transformer's weights. "
            "Set tokenizer.encoder_init=null."
        )

    def resize(self, image_size: int) -> None:
        """Adapts this tokenizer to images of another size, in place. Raises ValueError where that is not supported."""
        if image_size != self.image_size:
            raise ValueError(
                f"{type(self).__name__} is built for {self.image_size} px images and cannot be resized "
                f"to {image_size} px. Give every stage image_size={self.image_size}."
            )

    def validate_images(
        self,
        images: Tensor,
        *,
        factor: int | None = None,  # takes images of any sides that it divides; None: square ones of `image_size`
    ) -> None:
        """Raises ValueError unless images are floats in [-1, 1], (B, 3, H, W) of a size that it takes.

        Values are looked at outside of training.
        """
        self.validate_values(images)
        size = self.image_size
        if factor is None and (images.ndim != 4 or tuple(images.shape[1:]) != (3, size, size)):
            raise ValueError(f"{self.title} takes images (B, 3, {size}, {size}), got {tuple(images.shape)}.")
        if factor and (
            images.ndim != 4 or images.shape[1] != 3 or images.shape[2] % factor or images.shape[3] % factor
        ):
            raise ValueError(
                f"{self.title} takes images (B, 3, H, W) whose sides are multiples of {factor}, got "
                f"{tuple(images.shape)}."
            )

    def validate_latents(
        self,
        z: Tensor,
        grid: tuple[int, int] | None,
        *,
        any_grid: bool = False,
    ) -> LatentSpec:
        """The shape of latents to decode. Raises ValueError unless they are (B, N, C) of this grid.

        Unless it decodes `any_grid`, that must be the latent's own, for which None stands.
        """
        spec = self.latent
        if grid is not None and any_grid:
            spec = LatentSpec(grid[0] * grid[1], spec.channels, grid)
        if grid not in (None, spec.grid) or tuple(z.shape[1:]) != (spec.num_tokens, spec.channels):
            place = "without a grid" if spec.grid is None else f"on a {spec.grid} grid"
            raise ValueError(
                f"This {self.title} decodes latents (B, {spec.num_tokens}, {spec.channels}) {place}, got "
                f"{tuple(z.shape)} on {grid}. For another size call resize(image_size) first."
            )
        return spec

    def validate_factor(self, image_size: int, factor: int) -> None:
        """Raises ValueError for an image size that its factor does not divide."""
        if image_size < factor or image_size % factor:
            raise ValueError(
                f"image_size {image_size} is not a multiple of {factor}, by which this {self.title} downsamples images."
            )

    def refuse_masks(self, mask_ratio: float | Tensor) -> None:
        """Raises ValueError for a mask ratio above zero, in a tokenizer without masking."""
        if isinstance(mask_ratio, Tensor) or mask_ratio != 0:
            raise ValueError(f"{self.title} does not support masks, but mask_ratio is {mask_ratio}. Set mask_ratio=0.")

    def validate_values(self, images: Tensor) -> None:
        """Raises ValueError, with how to convert them, unless images are a tensor of the weights' type in [-1, 1]."""
        name = f"{self.title} takes float images in [-1, 1]"
        if not isinstance(images, Tensor):
            raise ValueError(
                f"{name} as a torch tensor (B, 3, H, W), got a {type(images).__name__}. Convert it with "
                "torch.from_numpy(x)."
            )
        if not images.is_floating_point():
            raise ValueError(f"{name}, got {images.dtype}. Convert 8-bit images: images.float() / 127.5 - 1.")
        weights = next(self.parameters(), None)
        if weights is not None and images.dtype == torch.float64 and weights.dtype != torch.float64:
            raise ValueError(f"{name}, got {images.dtype}, and its weights are {weights.dtype}: images.float().")
        if self.training or torch.compiler.is_compiling() or images.is_meta or not images.numel():
            return
        if torch._C._functorch.maybe_current_level() is not None:  # within jvp or vmap nothing can be looked at
            return
        largest = images.detach().abs().amax().item()
        if largest > LARGEST:
            raise ValueError(
                f"{name}, got values up to {largest:.4g}. Scale them: images / 127.5 - 1 from 0 to 255, images * 2 - 1 "
                "from 0 to 1."
            )
