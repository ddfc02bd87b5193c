"""MAETok: a masked autoencoder whose latent is a short sequence of learned tokens, without a grid.

[0] Chen et al., Masked Autoencoders Are Effective Tokenizers for Diffusion Models, 2025,
https://arxiv.org/abs/2502.03444
"""

from itertools import pairwise
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from ldbench.core.posterior import Posterior
from ldbench.core.tokenizer import Corruption, Reconstruction
from ldbench.layers.embed import patch_grid, unpatchify
from ldbench.layers.latent_token_tokenizer import LatentTokenTokenizer
from ldbench.layers.latent_tokens import LatentTokenEncoder
from ldbench.layers.masking import count_hidden, hide_highest, patch_noise
from ldbench.layers.query import ModulationStart, QueryDecoder

Positions = Literal["rope", "absolute"]


class MAETok(LatentTokenTokenizer):
    """Patches and latent tokens -> transformer -> latents -> modulated transformer -> patches.

    `latent_head`: `ae` (the paper's: a point) or `kl` (a Gaussian). `positions`: `rope` rotates the image tokens by
    learned 2D frequencies (the encoder also adds its learned table, as the official one does), `absolute` has learned
    tables only. `to_pixels`: `linear` or `conv`. `layer_scale`: the initial value of the encoder's LayerScale (official
    1e-5), or None for none. `modulation_start`: see `QueryDecoder`. `linear_std`, `token_std`: the initial standard
    deviations of linear layers of the blocks, and of tokens and tables; with 0.02 (official) a narrow network predicts
    the mean image for long. Raises ValueError for unknown choices, and if the patch size does not divide the image
    size.
    """

    encoder: "Encoder"
    decoder: "Decoder"

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        num_tokens: int,
        latent_channels: int,
        width: int,
        depth: int,
        num_heads: int,
        decoder_width: int,
        decoder_depth: int,
        decoder_num_heads: int,
        mlp_ratio: float,
        latent_head: Literal["ae", "kl"],
        positions: Positions,
        rope_theta: float,
        layer_scale: float | None,
        modulation_start: ModulationStart,
        linear_std: float,
        token_std: float,
        decoder_class_token: bool,
        to_pixels: Literal["linear", "conv"],
    ):
        super().__init__()
        for name, value, choices in (
            ("latent_head", latent_head, ("ae", "kl")),
            ("positions", positions, ("rope", "absolute")),
            ("to_pixels", to_pixels, ("linear", "conv")),
        ):
            if value not in choices:
                raise ValueError(f"Unknown {name} {value!r}. Choose {' or '.join(choices)}.")
        counts = {
            "num_tokens": num_tokens,
            "latent_channels": latent_channels,
            "width": width,
            "depth": depth,
            "num_heads": num_heads,
        }
        decoder = {
            "decoder_width": decoder_width,
            "decoder_depth": decoder_depth,
            "decoder_num_heads": decoder_num_heads,
        }
        scales = {"mlp_ratio": mlp_ratio, "rope_theta": rope_theta, "linear_std": linear_std, "token_std": token_std}
        for name, size in {**counts, **decoder, **scales}.items():
            if size <= 0:
                raise ValueError(f"{name} must be positive, got {size}.")
        self.image_size = image_size
        self.patch_size = patch_size
        self.num_tokens = num_tokens
        self.latent_channels = latent_channels
        grid = patch_grid(image_size, patch_size)
        theta = rope_theta if positions == "rope" else None
        self.encoder = Encoder(
            grid=grid,
            patch_size=patch_size,
            num_tokens=num_tokens,
            latent_channels=latent_channels,
            width=width,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            rope_theta=theta,
            layer_scale=layer_scale,
            linear_std=linear_std,
            token_std=token_std,
            gaussian=latent_head == "kl",
        )
        self.decoder = Decoder(
            grid=grid,
            patch_size=patch_size,
            num_tokens=num_tokens,
            latent_channels=latent_channels,
            width=decoder_width,
            depth=decoder_depth,
            num_heads=decoder_num_heads,
            mlp_ratio=mlp_ratio,
            rope_theta=theta,
            modulation_start=modulation_start,
            linear_std=linear_std,
            token_std=token_std,
            class_token=decoder_class_token,
            to_pixels=to_pixels,
        )

    def encode(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
    ) -> Posterior:
        """The posterior of the images."""
        self.validate_images(images)
        return self.encoder(images, mask=None)

    def forward(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
        *,
        mask_ratio: float | Tensor = 0.0,  # a number or (B,)
        mask_noise: Tensor | None = None,  # (B, P)
        eps: Tensor | None = None,  # (B, N, C)
        corruption: Corruption | None = None,
    ) -> Reconstruction:
        """Encodes images of which ceil(P * mask_ratio) patches are replaced by the mask token, and decodes the whole
        image.

        Raises ValueError for ratios outside [0, 1].
        """
        self.validate_images(images)
        mask = self.draw_mask(images, mask_ratio, mask_noise)
        posterior = self.encoder(images, mask=mask)
        z = posterior.sample(eps=eps)
        decoded = self.decoder(self.corrupt(z, corruption))
        return Reconstruction(images=decoded, z=z, posterior=posterior, mask=mask, patch_grid=self.patch_grid)

    @torch.compiler.disable  # the ratio differs in every batch and would trigger recompilation
    def draw_mask(
        self, images: Tensor, mask_ratio: float | Tensor, mask_noise: Tensor | None
    ) -> Tensor | None:  # (B, P) bool
        """The hidden patches; None if no ratio is above zero."""
        num_patches = self.patch_grid[0] * self.patch_grid[1]
        ratio = torch.as_tensor(mask_ratio, dtype=torch.float64)
        if ratio.shape not in ((), (len(images),)) or not bool(((ratio >= 0) & (ratio <= 1)).all()):
            raise ValueError(
                f"mask_ratio must be one number in [0, 1] or one for each of the {len(images)} images, got "
                f"{mask_ratio}."
            )
        if not bool(ratio.any()):
            return None
        mask_noise = patch_noise(images, num_patches, mask_noise)
        return hide_highest(mask_noise, count_hidden(ratio, num_patches).to(mask_noise.device))

    def anchors(self) -> dict[str, nn.Parameter]:
        """The weights at which balanced losses compare gradients."""
        encoder, decoder = self.encoder.to_latent, self.decoder.last
        return {"encoder": cast(nn.Parameter, encoder.weight), "decoder": cast(nn.Parameter, decoder.weight)}


class Encoder(LatentTokenEncoder):
    """Encodes a masked image to the posterior of its latents."""

    def __init__(self, *, latent_channels: int, gaussian: bool, **sizes: Any):
        super().__init__(outputs=latent_channels * (2 if gaussian else 1), mask_token=True, **sizes)
        self.gaussian = gaussian

    def forward(
        self,
        images: Tensor,  # (B, 3, H, W)
        *,
        mask: Tensor | None,  # (B, P) bool, True = hidden
    ) -> Posterior:
        """The posterior of the images."""
        moments = self.read(images, mask)
        if not self.gaussian:
            return Posterior(mean=moments)
        mean, logvar = moments.chunk(2, dim=-1)
        return Posterior(mean=mean, logvar=logvar.clamp(-30, 20))


class Decoder(nn.Module):
    """Decodes latents to an image."""

    def __init__(
        self,
        *,
        grid: tuple[int, int],
        patch_size: int,
        num_tokens: int,
        latent_channels: int,
        width: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        rope_theta: float | None,
        modulation_start: ModulationStart,
        linear_std: float,
        token_std: float,
        class_token: bool,
        to_pixels: str,
    ):
        super().__init__()
        self.patch_size = patch_size
        self.query = QueryDecoder(
            num_tokens=num_tokens,
            latent_channels=latent_channels,
            grid=grid,
            width=width,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            rope_theta=rope_theta,
            class_token=class_token,
            modulation_start=modulation_start,
            linear_std=linear_std,
            token_std=token_std,
        )
        self.to_pixels = (
            nn.Linear(width, 3 * patch_size**2)
            if to_pixels == "linear"
            else ConvPixels(width=width, patch_size=patch_size)
        )

    def forward(
        self,
        z: Tensor,  # (B, N, C)
    ) -> Tensor:  # (B, 3, H, W)
        """The decoded images."""
        grid = self.query.grid
        x = self.query(z)[:, -grid[0] * grid[1] :]
        if isinstance(self.to_pixels, nn.Linear):
            return unpatchify(self.to_pixels(x), grid, self.patch_size)
        return self.to_pixels(x, grid)

    @property
    def last(self) -> nn.Linear | nn.Conv2d:
        """The last layer."""
        return self.to_pixels if isinstance(self.to_pixels, nn.Linear) else self.to_pixels.last


class ConvPixels(nn.Module):
    """Tokens to pixels by convolutions: 128 channels, halved at each upsampling, 3 at the last.

    Raises ValueError unless the patch size is a power of two.
    """

    def __init__(self, *, width: int, patch_size: int):
        super().__init__()
        doublings = patch_size.bit_length() - 1
        if patch_size != 2**doublings or not 1 <= doublings <= 6:
            raise ValueError(
                f"to_pixels=conv upsamples by two: patch_size must be 2, 4, 8, 16, 32 or 64, got {patch_size}."
            )
        channels = [128 >> step for step in range(doublings)] + [3]
        layers: list[nn.Module] = [nn.Conv2d(width, 128, kernel_size=1)]
        for before, after in pairwise(channels):
            layers += [
                nn.ReLU(),
                nn.Upsample(scale_factor=2, mode="nearest"),
                nn.Conv2d(before, after, kernel_size=3, padding=1),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(
        self,
        x: Tensor,  # (B, P, D)
        grid: tuple[int, int],
    ) -> Tensor:  # (B, 3, H, W)
        """The images."""
        return self.layers(x.transpose(1, 2).unflatten(2, grid))

    @property
    def last(self) -> nn.Conv2d:
        """The last convolution."""
        last = self.layers[-1]
        assert isinstance(last, nn.Conv2d)
        return last
