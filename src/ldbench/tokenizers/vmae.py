"""VMAE: a variational masked autoencoder with a latent map of the visible patches.

[0] Lee et al., Latent Diffusion Models with Masked AutoEncoders (LDMAE), 2025, https://arxiv.org/abs/2507.09984
[1] He et al., Masked Autoencoders Are Scalable Vision Learners, 2022, https://arxiv.org/abs/2111.06377
"""

from typing import Literal, cast

import torch
from torch import Tensor, nn

from ldbench.core.latent import LatentSpec
from ldbench.core.posterior import Posterior
from ldbench.core.tokenizer import Corruption, Reconstruction, Tokenizer
from ldbench.layers.embed import PatchEmbed, patch_grid, unpatchify
from ldbench.layers.feedforward import MLP
from ldbench.layers.masking import gather_tokens, keep_lowest, patch_noise, scatter_tokens
from ldbench.layers.position import resize_table, sincos_2d
from ldbench.layers.vit import Transformer, init_transformer

PositionResize = Literal["interpolate", "fresh"]


class VMAE(Tokenizer):
    """Patches -> transformer -> Gaussian over a latent map -> transformer -> patches, smoothed by a 3x3 convolution.

    `latent_head`: `linear` (the paper's), or `mlp` with 4 * latent_channels hidden units (the official "f8d16" without
    "prev"). `position_resize`: whether `resize` interpolates the position tables bilinearly (`interpolate`, official),
    or recomputes them (`fresh`). Raises ValueError if the patch size does not divide the image size.
    """

    encoder: "Encoder"
    decoder: "Decoder"

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        latent_channels: int,
        width: int,
        depth: int,
        num_heads: int,
        decoder_width: int,
        decoder_depth: int,
        decoder_num_heads: int,
        mlp_ratio: float,
        latent_head: Literal["linear", "mlp"],
        position_resize: PositionResize,
    ):
        super().__init__()
        if latent_head not in ("linear", "mlp"):
            raise ValueError(f"Unknown latent_head {latent_head!r}. Choose linear or mlp.")
        if position_resize not in ("interpolate", "fresh"):
            raise ValueError(f"Unknown position_resize {position_resize!r}. Choose interpolate or fresh.")
        sizes = {
            "latent_channels": latent_channels,
            "width": width,
            "depth": depth,
            "decoder_width": decoder_width,
            "decoder_depth": decoder_depth,
        }
        for name, value in {
            **sizes,
            "num_heads": num_heads,
            "decoder_num_heads": decoder_num_heads,
            "mlp_ratio": mlp_ratio,
        }.items():
            if value <= 0:
                raise ValueError(f"{name} must be positive, got {value}.")
        self.image_size = image_size
        self.patch_size = patch_size
        self.latent_channels = latent_channels
        self.position_resize = position_resize
        grid = patch_grid(image_size, patch_size)
        self.encoder = Encoder(
            grid=grid,
            patch_size=patch_size,
            latent_channels=latent_channels,
            width=width,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            latent_head=latent_head,
        )
        self.decoder = Decoder(
            grid=grid,
            patch_size=patch_size,
            latent_channels=latent_channels,
            encoder_width=width,
            width=decoder_width,
            depth=decoder_depth,
            num_heads=decoder_num_heads,
            mlp_ratio=mlp_ratio,
            latent_head=latent_head,
        )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches, and of the latent."""
        return patch_grid(self.image_size, self.patch_size)

    @property
    def latent(self) -> LatentSpec:
        """The shape of the latents."""
        return LatentSpec(num_tokens=self.grid[0] * self.grid[1], channels=self.latent_channels, grid=self.grid)

    def encode(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
    ) -> Posterior:
        """The posterior of the images."""
        self.validate_images(images)
        return self.encoder(images, kept=None)

    def decode(
        self,
        z: Tensor,  # (B, N, C)
        grid: tuple[int, int] | None = None,
    ) -> Tensor:  # (B, 3, H, W)
        """The images of latents. Raises ValueError for another grid: call `resize` first."""
        self.validate_latents(z, grid)
        return self.decoder(z, kept=None)

    def forward(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
        *,
        mask_ratio: float | Tensor = 0.0,
        mask_noise: Tensor | None = None,  # (B, P)
        eps: Tensor | None = None,  # (B, N_kept, C)
        corruption: Corruption | None = None,
    ) -> Reconstruction:
        """Encodes the visible patches, samples their latents and decodes the whole image.

        int(P * (1 - mask_ratio)) patches stay visible in every image. Raises ValueError for per-image ratios, and for
        one that hides all.
        """
        self.validate_images(images)
        visible = self.draw_visible(images, mask_ratio, mask_noise)
        kept, mask = (None, None) if visible is None else visible
        posterior = self.encoder(images, kept=kept)
        z = posterior.sample(eps=eps)
        return Reconstruction(
            images=self.decoder(self.corrupt(z, corruption), kept=kept),
            z=z,
            posterior=posterior,
            mask=mask,
            patch_grid=None if mask is None else self.grid,
            kept=kept,
        )

    @torch.compiler.disable  # a second ratio in one process would become a symbol, of which no shape can be made
    def draw_visible(
        self, images: Tensor, mask_ratio: float | Tensor, mask_noise: Tensor | None
    ) -> tuple[Tensor, Tensor] | None:  # (B, N_kept) indices, (B, P) bool mask with True = hidden
        """The visible patches; None if the ratio is zero."""
        if isinstance(mask_ratio, Tensor):
            raise ValueError(
                "VMAE drops hidden patches, so all images of a batch hide the same number: "
                "mask_ratio must be one number."
            )
        if mask_ratio == 0:
            return None
        if not 0 < mask_ratio < 1:
            raise ValueError(f"mask_ratio must lie in [0, 1), got {mask_ratio}.")
        num_patches = self.latent.num_tokens
        mask_noise = patch_noise(images, num_patches, mask_noise)
        return keep_lowest(mask_noise, int(num_patches * (1 - mask_ratio)))

    def anchors(self) -> dict[str, nn.Parameter]:
        """The weights at which balanced losses compare gradients."""
        encoder, decoder = last_linear(self.encoder.to_latent), self.decoder.smooth
        return {"encoder": cast(nn.Parameter, encoder.weight), "decoder": cast(nn.Parameter, decoder.weight)}

    def resize(self, image_size: int) -> None:
        """Changes the image size in place; the position tables are interpolated or recomputed (`position_resize`)."""
        old, new = self.grid, patch_grid(image_size, self.patch_size)
        for part in (self.encoder, self.decoder):
            if self.position_resize == "interpolate":
                part.positions = resize_table(part.positions, old, new)
            else:
                part.positions = position_table(new, part.positions.shape[-1]).to(part.positions)
            part.grid = new
        self.image_size = image_size


class Encoder(nn.Module):
    """Encodes visible patches to the Gaussian over their latents."""

    def __init__(
        self,
        *,
        grid: tuple[int, int],
        patch_size: int,
        latent_channels: int,
        width: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        latent_head: str,
    ):
        super().__init__()
        self.grid = grid
        self.patch_embed = PatchEmbed(patch_size=patch_size, width=width)
        self.transformer = Transformer(width=width, depth=depth, num_heads=num_heads, mlp_ratio=mlp_ratio)
        self.to_latent = head(latent_head, width, 2 * latent_channels, hidden=4 * latent_channels)
        self.positions: Tensor
        self.register_buffer("positions", position_table(grid, width))  # (1, P, D)
        self.apply(init_transformer)
        projection = self.patch_embed.proj.weight
        nn.init.xavier_uniform_(projection.view(projection.shape[0], -1))

    def forward(
        self,
        images: Tensor,  # (B, 3, H, W)
        *,
        kept: Tensor | None,  # (B, K) indices
    ) -> Posterior:
        """The posterior of the kept patches."""
        x = self.patch_embed(images) + self.positions  # (B, P, D)
        if kept is not None:
            x = gather_tokens(x, kept)
        mean, logvar = self.to_latent(self.transformer(x)).chunk(2, dim=-1)  # (B, K, C) each
        return Posterior(mean=mean, logvar=logvar.clamp(-30, 20))


class Decoder(nn.Module):
    """Decodes latents, with mask tokens at the hidden positions, to an image."""

    def __init__(
        self,
        *,
        grid: tuple[int, int],
        patch_size: int,
        latent_channels: int,
        encoder_width: int,
        width: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        latent_head: str,
    ):
        super().__init__()
        self.grid = grid
        self.patch_size = patch_size
        self.from_latent = head(latent_head, latent_channels, encoder_width, hidden=4 * latent_channels)
        self.embed = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.transformer = Transformer(width=width, depth=depth, num_heads=num_heads, mlp_ratio=mlp_ratio)
        self.to_pixels = nn.Linear(width, 3 * patch_size**2)
        self.smooth = nn.Conv2d(3, 3, kernel_size=3, padding=1)
        self.positions: Tensor
        self.register_buffer("positions", position_table(grid, width))  # (1, P, D)
        self.apply(init_transformer)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(
        self,
        z: Tensor,  # (B, K, C)
        *,
        kept: Tensor | None,  # (B, K) indices
    ) -> Tensor:  # (B, 3, H, W)
        """The decoded images."""
        x = self.embed(self.from_latent(z))
        if kept is not None:
            x = scatter_tokens(x, kept, self.mask_token, self.positions.shape[1])
        x = self.transformer(x + self.positions)
        return self.smooth(unpatchify(self.to_pixels(x), self.grid, self.patch_size))


def position_table(grid: tuple[int, int], width: int) -> Tensor:  # (1, P, D)
    """Fixed sinusoidal positions, with float32 frequencies as in MAE."""
    return sincos_2d(grid, width=width, dtype=torch.float32)


def head(kind: str, width: int, out: int, *, hidden: int) -> nn.Module:
    """The map into or out of the latent."""
    return nn.Linear(width, out) if kind == "linear" else MLP(width=width, hidden=hidden, out=out)


def last_linear(module: nn.Module) -> nn.Linear:
    """The last linear layer of a head."""
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1]
