"""VA-VAE: the convolutional autoencoder of latent diffusion, with a latent map that a loss term aligns with a
foundation model.

[0] Yao et al., Reconstruction vs. Generation: Taming Optimization Dilemma in Latent Diffusion Models, 2025,
https://arxiv.org/abs/2501.01423
[1] Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, 2022, https://arxiv.org/abs/2112.10752
"""

from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from ldbench.core.latent import LatentSpec
from ldbench.core.posterior import Posterior
from ldbench.core.tokenizer import Tokenizer
from ldbench.layers.conv import ConvDecoder, ConvEncoder


class VAVAE(Tokenizer):
    """Images -> convolutions -> Gaussian over a latent map -> convolutions -> images, at 1 / 2^(len(widths) - 1) of the
    size.

    `widths`: channels of each resolution, the highest first; `depth`: residual blocks in each; `attention`: the
    resolutions with attention, as indices into `widths`; `decoder_attention`: those of the decoder, where they are
    others. `latent_head`: `kl` or `ae` (a point). `latent_convs`: whether a 1 x 1 convolution stands on either side of
    the latent, as in all but Stable Diffusion 3's and FLUX's. `channels_last` and
    `checkpointing` (activations are recomputed) change speed and memory, and numbers only by rounding. Takes images of
    any size that its factor divides, also non-square ones.
    """

    encoder: "Encoder"
    decoder: "Decoder"

    def __init__(
        self,
        *,
        image_size: int,
        widths: Sequence[int],
        depth: int,
        attention: Sequence[int],
        latent_channels: int,
        latent_head: Literal["kl", "ae"],
        channels_last: bool,
        checkpointing: bool,
        decoder_attention: Sequence[int] | None = None,
        latent_convs: bool = True,
    ):
        super().__init__()
        if latent_head not in ("kl", "ae"):
            raise ValueError(f"Unknown latent_head {latent_head!r}. Choose kl or ae.")
        if not widths or min(widths) < 1 or depth < 1 or latent_channels < 1:
            raise ValueError(
                f"widths, depth and latent_channels must be positive, got {list(widths)}, {depth} and "
                f"{latent_channels}."
            )
        unknown = [index for index in (*attention, *(decoder_attention or ())) if not 0 <= index < len(widths)]
        if unknown:
            raise ValueError(
                f"attention has resolution {unknown[0]}, but the {len(widths)} widths are of 0 to {len(widths) - 1}."
            )
        self.factor = 2 ** (len(widths) - 1)
        self.latent_channels = latent_channels
        self.channels_last = channels_last
        self.resize(image_size)
        shape = {"widths": tuple(widths), "depth": depth, "attention": tuple(attention), "checkpointing": checkpointing}
        self.encoder = Encoder(
            latent_channels=latent_channels, latent_convs=latent_convs, gaussian=latent_head == "kl", shape=shape
        )
        if decoder_attention is not None:
            shape["attention"] = tuple(decoder_attention)
        self.decoder = Decoder(latent_channels=latent_channels, latent_convs=latent_convs, shape=shape)
        if channels_last:
            self.to(memory_format=torch.channels_last)

    @property
    def latent(self) -> LatentSpec:
        """The shape of the latents."""
        side = self.image_size // self.factor
        return LatentSpec(num_tokens=side * side, channels=self.latent_channels, grid=(side, side))

    def encode(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
    ) -> Posterior:
        """The posterior of the images."""
        self.validate_images(images, factor=self.factor)
        return self.encoder(self.to_memory_format(images))

    def decode(
        self,
        z: Tensor,  # (B, N, C)
        grid: tuple[int, int] | None = None,
    ) -> Tensor:  # (B, 3, H, W)
        """The images of latents. Raises ValueError for latents of another shape."""
        spec = self.validate_latents(z, grid, any_grid=True)
        return self.decoder(self.to_memory_format(spec.to_map(z)))

    def anchors(self) -> dict[str, nn.Parameter]:
        """The weights at which balanced losses compare gradients."""
        encoder, decoder = self.encoder.conv.conv_out, self.decoder.conv.conv_out
        return {"encoder": cast(nn.Parameter, encoder.weight), "decoder": cast(nn.Parameter, decoder.weight)}

    def resize(self, image_size: int) -> None:
        """Changes the size of square images; nothing is rebuilt. Raises ValueError if its factor does not divide it."""
        self.validate_factor(image_size, self.factor)
        self.image_size = image_size

    def to_memory_format(self, x: Tensor) -> Tensor:
        """Converts a map to the memory format of the weights."""
        return x.contiguous(memory_format=torch.channels_last) if self.channels_last else x


class Encoder(nn.Module):
    """Encodes an image to the Gaussian over its latent map, or to a point."""

    def __init__(self, *, latent_channels: int, latent_convs: bool, gaussian: bool, shape: dict):
        super().__init__()
        self.gaussian = gaussian
        num_moments = latent_channels * (2 if gaussian else 1)
        self.conv = ConvEncoder(out_channels=num_moments, **shape)
        self.to_latent = nn.Conv2d(num_moments, num_moments, 1) if latent_convs else nn.Identity()

    def forward(
        self,
        images: Tensor,  # (B, 3, H, W)
    ) -> Posterior:
        """The posterior of the images."""
        moments = self.to_latent(self.conv(images)).flatten(2).transpose(1, 2)  # (B, N, num_moments)
        if not self.gaussian:
            return Posterior(mean=moments)
        mean, logvar = moments.chunk(2, dim=-1)
        return Posterior(mean=mean, logvar=logvar.clamp(-30, 20))


class Decoder(nn.Module):
    """Decodes a latent map to an image."""

    def __init__(self, *, latent_channels: int, latent_convs: bool, shape: dict):
        super().__init__()
        self.from_latent = nn.Conv2d(latent_channels, latent_channels, 1) if latent_convs else nn.Identity()
        self.conv = ConvDecoder(in_channels=latent_channels, **shape)

    def forward(
        self,
        z: Tensor,  # (B, C, h, w)
    ) -> Tensor:  # (B, 3, H, W)
        """The decoded images."""
        return self.conv(self.from_latent(z))
