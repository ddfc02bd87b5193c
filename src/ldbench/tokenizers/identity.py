"""Identity: pixels as latents.

It is lossless, so that every reconstruction error is 0: a sanity check of the metrics.
"""

from torch import Tensor, nn

from ldbench.core.latent import LatentSpec
from ldbench.core.posterior import Posterior
from ldbench.core.tokenizer import Tokenizer
from ldbench.layers.embed import patch_grid, patchify, unpatchify


class Identity(Tokenizer):
    """The pixels of each patch are the channels of its token, ordered (row, column, color). Nothing is learned.

    Takes images of any size that `patch_size` divides, also non-square ones. Raises ValueError if it does not divide
    `image_size`.
    """

    def __init__(self, *, image_size: int, patch_size: int):
        super().__init__()
        self.patch_size = patch_size
        self.encoder, self.decoder = nn.Identity(), nn.Identity()  # stages may name them; they have no parameters
        self.resize(image_size)

    @property
    def latent(self) -> LatentSpec:
        """The shape of the latents."""
        grid = patch_grid(self.image_size, self.patch_size)
        return LatentSpec(num_tokens=grid[0] * grid[1], channels=3 * self.patch_size**2, grid=grid)

    def encode(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
    ) -> Posterior:
        """The pixels, as a point."""
        self.validate_images(images, factor=self.patch_size)
        return Posterior(mean=patchify(images, self.grid_of(images)))

    def decode(
        self,
        z: Tensor,  # (B, N, C)
        grid: tuple[int, int] | None = None,
    ) -> Tensor:  # (B, 3, H, W)
        """The images of latents."""
        own = patch_grid(self.image_size, self.patch_size)
        return unpatchify(z, own if grid is None else grid, self.patch_size)

    def anchors(self) -> dict[str, nn.Parameter]:
        """The weights at which balanced losses compare gradients."""
        return {}

    def resize(self, image_size: int) -> None:
        """Changes the size of square images. Raises ValueError if the patch size does not divide it."""
        patch_grid(image_size, self.patch_size)
        self.image_size = image_size

    def grid_of(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of patches."""
        return images.shape[2] // self.patch_size, images.shape[3] // self.patch_size
