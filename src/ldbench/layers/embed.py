"""Converts images to patch tokens and back."""

from einops import rearrange
from torch import Tensor, nn


class PatchEmbed(nn.Module):
    """A linear projection of each patch: a convolution with stride = kernel size, tokens row-major."""

    def __init__(self, *, patch_size: int, width: int):
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size)

    def forward(
        self,
        images: Tensor,  # (B, 3, H, W)
    ) -> Tensor:  # (B, P, D)
        """The patch tokens."""
        return rearrange(self.proj(images), "b d h w -> b (h w) d")


def unpatchify(
    patches: Tensor,  # (B, P, p*q*3), a patch ordered (row, column, channel)
    grid: tuple[int, int],
    patch_size: int,
) -> Tensor:  # (B, 3, H, W)
    """The image that the patches tile."""
    return rearrange(patches, "b (h w) (p q c) -> b c (h p) (w q)", h=grid[0], w=grid[1], p=patch_size, q=patch_size)


def patchify(
    images: Tensor,  # (B, C, H, W)
    grid: tuple[int, int],
) -> Tensor:  # (B, P, p*q*C), a patch ordered (row, column, channel)
    """The patches of an image, row-major. Raises ValueError if the grid does not divide the image."""
    height, width = images.shape[-2:]
    if height % grid[0] or width % grid[1]:
        raise ValueError(f"A patch grid of {grid[0]}x{grid[1]} does not divide an image of {height}x{width}.")
    return rearrange(images, "b c (h p) (w q) -> b (h w) (p q c)", h=grid[0], w=grid[1])


def patch_grid(image_size: int, patch_size: int) -> tuple[int, int]:
    """Rows and columns of patches. Raises ValueError if the patch size does not divide the image size."""
    if patch_size < 1 or image_size % patch_size:
        divisors = [size for size in range(1, image_size + 1) if image_size % size == 0]
        raise ValueError(
            f"patch_size {patch_size} does not divide the {image_size} px image. Choose one of {divisors}."
        )
    return image_size // patch_size, image_size // patch_size
