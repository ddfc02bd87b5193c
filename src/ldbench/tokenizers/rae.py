"""RAE: normalized patch tokens of a frozen pretrained encoder as latents, and a vision transformer that decodes them.

[0] Zheng et al., Diffusion Transformers with Representation Autoencoders, 2025, https://arxiv.org/abs/2510.11690
[1] He et al., Masked Autoencoders Are Scalable Vision Learners, 2022, https://arxiv.org/abs/2111.06377 (the decoder)
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ldbench.core.latent import LatentSpec
from ldbench.core.posterior import Posterior
from ldbench.core.tokenizer import Corruption, Tokenizer
from ldbench.layers.embed import unpatchify
from ldbench.layers.position import sincos_2d
from ldbench.layers.pretrained_encoders import build_encoder
from ldbench.layers.vit import Transformer, init_transformer

STD_EPS = 1e-5  # added to the deviations of latents, as in diffusers; the official code has sqrt(variance + 1e-5)
NORM_EPS = 1e-12  # of the decoder's LayerNorms
POSITIONS = 16  # on a side of the decoder's table, which are spread over any grid, as in diffusers


class RAE(Tokenizer):
    """Images at the encoder's size -> frozen encoder -> tokens, normalized for each position and channel -> transformer
    -> patches.

    `patch_size`: px of a token's patch in the decoded image. `encoder_architecture`: timm's name of a vision
    transformer, or `FeatureNetwork`; `encoder_settings`: keywords of its constructor; `encoder_size`: px of its input,
    to which images are resized bicubically. `pixel_mean`, `pixel_std`: of pixels in [0, 1], three each, by which the
    encoder's input is normalized, and the decoder's output is scaled back. The statistics of latents are 0 and 1 until
    they are set, by the pipeline to those of the training images. A corruption acts before the normalization. Raises
    ValueError for an encoder that does not exist, and unless `image_size` is `patch_size` times the encoder's grid.
    """

    encoder: "Encoder"
    decoder: "Decoder"

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        encoder_architecture: str,
        encoder_settings: Mapping[str, Any],
        encoder_size: int,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        decoder_width: int,
        decoder_depth: int,
        decoder_num_heads: int,
        decoder_mlp_width: int,
    ):
        super().__init__()
        sizes = {"patch_size": patch_size, "encoder_size": encoder_size, "decoder_width": decoder_width}
        sizes |= {"decoder_depth": decoder_depth, "decoder_num_heads": decoder_num_heads}
        for name, size in {**sizes, "decoder_mlp_width": decoder_mlp_width}.items():
            if size <= 0:
                raise ValueError(f"{name} must be positive, got {size}.")
        if len(pixel_mean) != 3 or len(pixel_std) != 3 or min(pixel_std) <= 0:
            raise ValueError(
                "pixel_mean and pixel_std must be three numbers each, and the latter positive, got "
                f"{list(pixel_mean)} and {list(pixel_std)}."
            )
        pixels = {"pixel_mean": pixel_mean, "pixel_std": pixel_std}
        self.encoder = Encoder(
            image_size=encoder_size, architecture=encoder_architecture, settings=encoder_settings, **pixels
        )
        self.grid, self.channels = self.encoder.tokens.grid, self.encoder.tokens.channels
        if image_size != patch_size * self.grid[0]:
            raise ValueError(
                f"This encoder has {self.grid[0]} x {self.grid[1]} tokens of patches of {patch_size} px: images of "
                f"{patch_size * self.grid[0]} px, and image_size is {image_size}."
            )
        self.image_size = image_size
        self.decoder = Decoder(
            grid=self.grid,
            patch_size=patch_size,
            channels=self.channels,
            width=decoder_width,
            depth=decoder_depth,
            num_heads=decoder_num_heads,
            mlp_width=decoder_mlp_width,
            **pixels,
        )
        shape = (self.grid[0] * self.grid[1], self.channels)
        self.latent_mean: Tensor
        self.latent_std: Tensor
        self.register_buffer("latent_mean", torch.zeros(shape))
        self.register_buffer("latent_std", torch.ones(shape))

    @property
    def latent(self) -> LatentSpec:
        """The shape of the latents."""
        return LatentSpec(num_tokens=self.grid[0] * self.grid[1], channels=self.channels, grid=self.grid)

    def features(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
    ) -> Tensor:  # (B, N, C)
        """The encoder's tokens, before they are normalized."""
        self.validate_images(images)
        return self.encoder(images)

    def set_statistics(
        self,
        mean: Tensor,  # (N, C)
        std: Tensor,  # (N, C)
    ) -> None:
        """Sets the statistics by which the encoder's tokens are normalized."""
        self.latent_mean.copy_(mean)
        self.latent_std.copy_(std)

    def normalize(
        self,
        features: Tensor,  # (B, N, C)
    ) -> Tensor:  # (B, N, C)
        """The latents of the encoder's tokens."""
        return (features - self.latent_mean) / (self.latent_std + STD_EPS)

    def denormalize(
        self,
        z: Tensor,  # (B, N, C)
    ) -> Tensor:  # (B, N, C)
        """The encoder's tokens of latents."""
        return z * (self.latent_std + STD_EPS) + self.latent_mean

    def encode(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
    ) -> Posterior:
        """The normalized tokens of the images, as a point."""
        return Posterior(mean=self.normalize(self.features(images)))

    def decode(
        self,
        z: Tensor,  # (B, N, C)
        grid: tuple[int, int] | None = None,
    ) -> Tensor:  # (B, 3, H, W)
        """The images of latents. Raises ValueError for latents of another shape or grid."""
        self.validate_latents(z, grid)
        return self.decoder(self.denormalize(z))

    def corrupt(
        self,
        z: Tensor,  # (B, N, C)
        corruption: Corruption | None,
    ) -> Tensor:  # (B, N, C)
        """The latents of the encoder's corrupted tokens."""
        return z if corruption is None else self.normalize(corruption(self.denormalize(z)))

    def anchors(self) -> dict[str, nn.Parameter]:
        """The weights at which balanced losses compare gradients."""
        decoder = cast(nn.Parameter, self.decoder.to_pixels.weight)
        return {"encoder": self.encoder.tokens.last, "decoder": decoder}

    def init_encoder(self, weights: Mapping[str, Tensor]) -> None:
        """Takes the encoder's pretrained weights. Raises ValueError for those of another encoder."""
        self.encoder.tokens.load_weights(weights)


class PixelScale(nn.Module):
    """Pixels of images and their normalized values, by three means and deviations of pixels in [0, 1]."""

    def __init__(self, *, pixel_mean: Sequence[float], pixel_std: Sequence[float]):
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(list(pixel_mean)).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(list(pixel_std)).view(1, 3, 1, 1), persistent=False)

    def normalize(
        self,
        images: Tensor,  # (B, 3, H, W) in [0, 1]
    ) -> Tensor:  # (B, 3, H, W)
        """The normalized pixels."""
        return (images - self.mean) / self.std

    def denormalize(
        self,
        x: Tensor,  # (B, 3, H, W) normalized
    ) -> Tensor:  # (B, 3, H, W)
        """The images, in [-1, 1] where the pixels are valid; not clamped."""
        return (x * self.std + self.mean) * 2 - 1


class Encoder(nn.Module):
    """Resizes and normalizes images, and encodes them to tokens."""

    def __init__(self, *, image_size: int, architecture: str, settings: Mapping[str, Any], **pixels: Sequence[float]):
        super().__init__()
        self.image_size = image_size
        self.pixels = PixelScale(**pixels)
        self.tokens = build_encoder(image_size=image_size, architecture=architecture, settings=settings)

    def forward(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
    ) -> Tensor:  # (B, N, C)
        """The tokens."""
        x = (images + 1) / 2
        if x.shape[-1] != self.image_size:
            x = F.interpolate(x, size=(self.image_size, self.image_size), mode="bicubic", align_corners=False)
        return self.tokens(self.pixels.normalize(x))


class Decoder(nn.Module):
    """Decodes tokens by a plain vision transformer with a class token, as that of [1]."""

    def __init__(
        self,
        *,
        grid: tuple[int, int],
        patch_size: int,
        channels: int,
        width: int,
        depth: int,
        num_heads: int,
        mlp_width: int,
        **pixels: Sequence[float],
    ):
        super().__init__()
        self.grid = grid
        self.patch_size = patch_size
        self.pixels = PixelScale(**pixels)
        self.embed = nn.Linear(channels, width)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.transformer = Transformer(
            width=width,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=(mlp_width + 0.5) / width,  # the product is rounded down
            eps=NORM_EPS,
        )
        self.to_pixels = nn.Linear(width, 3 * patch_size**2)
        table = sincos_2d(grid, width=width, spacing=POSITIONS / grid[0])
        self.positions: Tensor
        self.register_buffer("positions", F.pad(table, (0, 0, 1, 0)), persistent=False)  # (1, 1 + N, D), zero first
        self.apply(init_transformer)

    def forward(
        self,
        tokens: Tensor,  # (B, N, C)
    ) -> Tensor:  # (B, 3, H, W)
        """The decoded images."""
        x = self.embed(tokens)
        x = torch.cat([self.class_token.expand(len(x), -1, -1).to(x.dtype), x], dim=1) + self.positions
        x = self.to_pixels(self.transformer(x))[:, 1:]
        return self.pixels.denormalize(unpatchify(x, self.grid, self.patch_size))
