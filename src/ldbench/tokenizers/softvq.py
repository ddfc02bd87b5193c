"""SoftVQ-VAE: learned tokens whose latents are soft mixtures of a codebook, and its quantized and Gaussian siblings.

[0] Chen et al., SoftVQ-VAE: Efficient 1-Dimensional Continuous Tokenizer, CVPR 2025, https://arxiv.org/abs/2412.10958
"""

from typing import Any, Literal, cast

from torch import Tensor, nn

from ldbench.core.posterior import Posterior
from ldbench.core.tokenizer import Corruption, Quantization, Reconstruction
from ldbench.layers.codebook import Codebook
from ldbench.layers.embed import patch_grid, unpatchify
from ldbench.layers.latent_token_tokenizer import LatentTokenTokenizer
from ldbench.layers.latent_tokens import LatentTokenEncoder
from ldbench.layers.query import PlainQueryDecoder

LatentHead = Literal["softvq", "vq", "kl", "ae"]


class SoftVQ(LatentTokenTokenizer):
    """Patches and latent tokens -> transformer -> latents -> queries and latents -> plain transformer -> patches.

    `latent_head`: `softvq` (the paper's: mixtures of codes), `vq` (the nearest code, straight-through), `kl` (a
    Gaussian) or `ae` (a point). `num_codebooks` books of `codebook_size` codes, each for a segment of the tokens;
    `temperature` of the mixtures (official 0.07); `unit_norm`: codes and latents are compared at length 1. For `kl` and
    `ae` the codebook is not used. `layer_scale`: the initial value of LayerScale (official 1e-5), or None for none.
    `linear_std`, `token_std`: the initial standard deviations of linear layers of the blocks, and of tokens and tables
    (official 0.02). Raises ValueError for unknown choices, numbers out of range, and if the patch size does not divide
    the image size.
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
        latent_head: LatentHead,
        num_codebooks: int,
        codebook_size: int,
        temperature: float,
        unit_norm: bool,
        layer_scale: float | None,
        linear_std: float,
        token_std: float,
    ):
        super().__init__()
        if latent_head not in ("softvq", "vq", "kl", "ae"):
            raise ValueError(f"Unknown latent_head {latent_head!r}. Choose softvq, vq, kl or ae.")
        sizes = {"num_tokens": num_tokens, "latent_channels": latent_channels, "width": width, "depth": depth}
        sizes |= {"num_heads": num_heads, "decoder_width": decoder_width, "decoder_depth": decoder_depth}
        scales = {"decoder_num_heads": decoder_num_heads, "mlp_ratio": mlp_ratio}
        scales |= {"linear_std": linear_std, "token_std": token_std}
        for name, size in {**sizes, **scales}.items():
            if size <= 0:
                raise ValueError(f"{name} must be positive, got {size}.")
        self.image_size = image_size
        self.patch_size = patch_size
        self.num_tokens = num_tokens
        self.latent_channels = latent_channels
        grid = patch_grid(image_size, patch_size)
        shared: dict[str, Any] = {
            "grid": grid,
            "patch_size": patch_size,
            "num_tokens": num_tokens,
            "latent_channels": latent_channels,
            "mlp_ratio": mlp_ratio,
            "layer_scale": layer_scale,
            "linear_std": linear_std,
            "token_std": token_std,
        }
        codebook = Codebook(
            num_tokens=num_tokens,
            channels=latent_channels,
            num_codebooks=num_codebooks,
            size=codebook_size,
            temperature=temperature if latent_head == "softvq" else None,
            unit_norm=unit_norm,
        )
        self.encoder = Encoder(
            width=width,
            depth=depth,
            num_heads=num_heads,
            gaussian=latent_head == "kl",
            codebook=codebook if latent_head in ("softvq", "vq") else None,
            **shared,
        )
        self.decoder = Decoder(width=decoder_width, depth=decoder_depth, num_heads=decoder_num_heads, **shared)

    def encode(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
    ) -> Posterior:
        """The posterior of the images: a point, unless `latent_head` is `kl`."""
        self.validate_images(images)
        return self.encoder(images)[0]

    def forward(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
        *,
        mask_ratio: float | Tensor = 0.0,
        mask_noise: Tensor | None = None,
        eps: Tensor | None = None,  # (B, N, C)
        corruption: Corruption | None = None,
    ) -> Reconstruction:
        """Encodes, samples and decodes. Raises ValueError for a mask, which this encoder does not have."""
        self.refuse_masks(mask_ratio)
        self.validate_images(images)
        posterior, quantization = self.encoder(images)
        z = posterior.sample(eps=eps)
        return Reconstruction(
            images=self.decoder(self.corrupt(z, corruption)),
            z=z,
            posterior=posterior,
            patch_grid=self.patch_grid,
            quantization=quantization,
        )

    def anchors(self) -> dict[str, nn.Parameter]:
        """The weights at which balanced losses compare gradients."""
        encoder, decoder = self.encoder.to_latent, self.decoder.to_pixels
        return {"encoder": cast(nn.Parameter, encoder.weight), "decoder": cast(nn.Parameter, decoder.weight)}


class Encoder(LatentTokenEncoder):
    """Encodes an image to its latents, through a codebook if there is one."""

    def __init__(self, *, latent_channels: int, gaussian: bool, codebook: Codebook | None, **sizes: Any):
        outputs = latent_channels * (2 if gaussian else 1)
        super().__init__(outputs=outputs, mask_token=False, rope_theta=None, **sizes)
        self.gaussian = gaussian
        self.codebook = codebook

    def forward(
        self,
        images: Tensor,  # (B, 3, H, W)
    ) -> tuple[Posterior, Quantization | None]:
        """The posterior of the images, and what the codebook made of them."""
        vectors = self.read(images)
        if self.gaussian:
            mean, logvar = vectors.chunk(2, dim=-1)
            return Posterior(mean=mean, logvar=logvar.clamp(-30, 20)), None
        if self.codebook is None:
            return Posterior(mean=vectors), None
        quantization = self.codebook(vectors)
        return Posterior(mean=quantization.latents), quantization


class Decoder(nn.Module):
    """Decodes latents to an image."""

    def __init__(self, *, patch_size: int, width: int, **sizes: Any):
        super().__init__()
        self.patch_size = patch_size
        self.query = PlainQueryDecoder(width=width, **sizes)
        self.to_pixels = nn.Linear(width, 3 * patch_size**2)

    def forward(
        self,
        z: Tensor,  # (B, N, C)
    ) -> Tensor:  # (B, 3, H, W)
        """The decoded images."""
        return unpatchify(self.to_pixels(self.query(z)), self.query.grid, self.patch_size)
