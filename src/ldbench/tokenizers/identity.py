"""Identity: pixels as latents. It loses nothing, so that every distance of its reconstructions is 0: the sanity row of a table."""

from torch import Tensor, nn

from ldbench.core.latent import LatentSpec
from ldbench.core.posterior import Posterior
from ldbench.core.tokenizer import Reconstruction, Tokenizer
from ldbench.layers.embed import patch_grid, patchify, unpatchify


class Identity(Tokenizer):
    """The pixels of each patch are the channels of its token, ordered (row, column, colour). Nothing is learned, nothing lost.

    Takes images of any size that `patch_size` divides, also non-square ones. Raises ValueError where it does not divide `image_size`.
    """

    def __init__(self, *, image_size: int, patch_size: int):
        super().__init__()
        self.patch_size = patch_size
        self.encoder, self.decoder = nn.Identity(), nn.Identity()  # a stage may name them, and finds nothing to train
        self.resize(image_size)

    @property
    def latent(self) -> LatentSpec:
        grid = patch_grid(self.image_size, self.patch_size)
        return LatentSpec(num_tokens=grid[0] * grid[1], channels=3 * self.patch_size**2, grid=grid)

    def encode(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
    ) -> Posterior:
        return Posterior(mean=patchify(images, self.grid_of(images)))

    def decode(
        self,
        z: Tensor,  # (B, N, C)
        grid: tuple[int, int] | None = None,
    ) -> Tensor:  # (B, 3, H, W)
        return unpatchify(z, self.latent.grid if grid is None else grid, self.patch_size)

    def forward(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
        *,
        mask_ratio: float | Tensor = 0.0,
        mask_noise: Tensor | None = None,
        eps: Tensor | None = None,
    ) -> Reconstruction:
        """The images themselves. Raises ValueError for a mask: there is nothing that could fill it in."""
        if isinstance(mask_ratio, Tensor) or mask_ratio != 0:
            raise ValueError(
                f"The identity hides nothing: it takes no mask, and mask_ratio is {mask_ratio}. Say mask_ratio=0."
            )
        posterior, grid = self.encode(images), self.grid_of(images)
        return Reconstruction(
            images=self.decode(posterior.mean, grid), z=posterior.mean, posterior=posterior, patch_grid=grid
        )

    def anchors(self) -> dict[str, nn.Parameter]:
        return {}

    def resize(self, image_size: int) -> None:
        """Names another size of square images. Raises ValueError for one that the patch size does not divide."""
        patch_grid(image_size, self.patch_size)
        self.image_size = image_size

    def grid_of(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of patches. Raises ValueError unless images are (B, 3, H, W) with sides that the patch size divides."""
        if images.ndim != 4 or images.shape[1] != 3 or any(side % self.patch_size for side in images.shape[2:]):
            raise ValueError(
                f"Identity takes images (B, 3, H, W) whose sides are multiples of {self.patch_size}, got {tuple(images.shape)}."
            )
        return images.shape[2] // self.patch_size, images.shape[3] // self.patch_size
