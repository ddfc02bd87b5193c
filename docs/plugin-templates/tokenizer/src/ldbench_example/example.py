"""A tokenizer that encodes blocks of pixels by one convolution."""

from typing import ClassVar

from torch import Tensor, nn

from ldbench.core.latent import LatentSpec
from ldbench.core.posterior import Posterior
from ldbench.core.tokenizer import Tokenizer


class Example(Tokenizer):
    """`block` x `block` pixels -> `channels` numbers -> pixels."""

    revision: ClassVar[int] = 1  # raised when a change of code changes the numbers

    def __init__(self, *, image_size: int, block: int, channels: int):
        super().__init__()
        if image_size % block:
            raise ValueError(f"block {block} does not divide the image size {image_size}. Choose one that does.")
        self.image_size, self.block, self.channels = image_size, block, channels
        self.encoder = nn.Conv2d(3, channels, kernel_size=block, stride=block)
        self.decoder = nn.ConvTranspose2d(channels, 3, kernel_size=block, stride=block)

    @property
    def latent(self) -> LatentSpec:
        """The shape of the latents."""
        side = self.image_size // self.block
        return LatentSpec(num_tokens=side * side, channels=self.channels, grid=(side, side))

    def encode(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
    ) -> Posterior:  # of points (B, N, C)
        """The latents of images."""
        self.validate_images(images)
        return Posterior(mean=self.encoder(images).flatten(2).transpose(1, 2))

    def decode(
        self,
        z: Tensor,  # (B, N, C)
        grid: tuple[int, int] | None = None,
    ) -> Tensor:  # (B, 3, H, W)
        """The images of latents."""
        spec = self.validate_latents(z, grid, any_grid=True)
        return self.decoder(spec.to_map(z))

    def anchors(self) -> dict[str, nn.Parameter]:
        """Where loss terms that are balanced by gradients compare them."""
        return {"encoder": self.encoder.weight, "decoder": self.decoder.weight}
