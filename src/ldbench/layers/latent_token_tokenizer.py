"""What tokenizers of learned latent tokens share: a sequence without a grid, beside a grid of patches."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ldbench.core.latent import LatentSpec
from ldbench.core.tokenizer import Tokenizer
from ldbench.layers.embed import patch_grid


class LatentTokenTokenizer(Tokenizer):
    """A tokenizer with `num_tokens` latents of `latent_channels`, encoded by a `LatentTokenEncoder` and decoded by
    queries, `decoder.query`.
    """

    encoder: Any
    decoder: Any
    patch_size: int
    num_tokens: int
    latent_channels: int

    @property
    def latent(self) -> LatentSpec:
        """The shape of the latents."""
        return LatentSpec(num_tokens=self.num_tokens, channels=self.latent_channels)

    @property
    def patch_grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return patch_grid(self.image_size, self.patch_size)

    def decode(
        self,
        z: Tensor,  # (B, N, C)
        grid: tuple[int, int] | None = None,
    ) -> Tensor:  # (B, 3, H, W)
        """The images of latents.

        Raises ValueError for a grid, which these latents do not have, and for another shape.
        """
        self.validate_latents(z, grid)
        return self.decoder(z)

    def init_encoder(self, weights: Mapping[str, Tensor]) -> None:
        """Starts the encoder from a vision transformer's weights. Raises ValueError for one of another size."""
        self.encoder.init_from_vit(weights)

    def resize(self, image_size: int) -> None:
        """Changes the image size in place; learned position tables are interpolated, rotary positions are extended."""
        grid = patch_grid(image_size, self.patch_size)
        self.encoder.resize(grid)
        self.decoder.query.resize(grid)
        self.image_size = image_size
