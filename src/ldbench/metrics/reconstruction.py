"""Reconstruction metrics: one number for each image, from uint8 pixels, in float64.

Each image is measured separately, so no value depends on the batch size or the order. All values agree with
torchmetrics', errors below rounding apart; structural similarity is implemented here because torchmetrics convolves its
11x11 window in float64, which takes a second for an image of 256 px.

[0] Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity, 2004,
    https://doi.org/10.1109/TIP.2003.819861
[1] Wang et al., Multiscale Structural Similarity for Image Quality Assessment, 2003,
    https://doi.org/10.1109/ACSSC.2003.1292216
"""

from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

WINDOW, SIGMA = 11, 1.5  # px, of [0]
HALF = WINDOW // 2
LUMINANCE, CONTRAST = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # [0]'s C1 and C2 for pixels in [0, 255]
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # weights of [1], finest scale first

ROUNDING_ERROR = 1 / 12  # of a uniform error of half a level either way, squared
MS_SSIM_SIZE = 161  # px; smaller images do not fit the window at the fifth scale


def psnr(
    images: Tensor,  # (B, 3, H, W) uint8
    recon: Tensor,  # (B, 3, H, W) uint8
) -> Tensor:  # (B,) float64
    """Peak signal-to-noise ratio in dB, by image: 10 log10(255^2 / mse).

    Rounding to 8 bits alone has a mean squared error of 1/12 of a level squared. An error below that counts as that,
    58.92 dB, so that one exactly reproduced image does not make a mean over images infinite.
    """
    a, b = as_float64_pair(images, recon)
    return 10 * (255**2 / (a - b).square().mean(dim=(1, 2, 3)).clamp(min=ROUNDING_ERROR)).log10()


def ssim(
    images: Tensor,  # (B, 3, H, W) uint8
    recon: Tensor,  # (B, 3, H, W) uint8
) -> Tensor:  # (B,) float64
    """Structural similarity [0] in [-1, 1], by image: an 11x11 Gaussian window with sigma 1.5 over each color channel.

    Averaged over all pixels with reflected borders, as in torchmetrics; [0] leaves the borders out. Raises ValueError
    for images under 6 px.
    """
    return torch.stack([similarity(*pair)[0].mean() for pair in zip(*as_float64_pair(images, recon), strict=True)])


def ms_ssim(
    images: Tensor,  # (B, 3, H, W) uint8
    recon: Tensor,  # (B, 3, H, W) uint8
) -> Tensor:  # (B,) float64
    """Structural similarity at five scales [1], by image, in [0, 1]: contrast and structure at each, luminance at the
    coarsest.

    As in torchmetrics, which refuses images under 176 px. Raises ValueError for images under 161 px, for which it is
    not defined.
    """
    a, b = as_float64_pair(images, recon)
    if min(a.shape[-2:]) < MS_SSIM_SIZE:
        raise ValueError(
            f"ms_ssim has five scales and needs images of at least {MS_SSIM_SIZE} px, got {a.shape[-2]}x{a.shape[-1]}. "
            "Leave it out of protocol.reconstruction; ssim works for these images."
        )
    product = a.new_ones(len(a))
    for scale, weight in enumerate(SCALES):
        pairs = [similarity(*pair) for pair in zip(a, b, strict=True)]
        last = scale == len(SCALES) - 1
        # torchmetrics leaves out the borders of the contrast
        maps = [full if last else contrast[..., HALF:-HALF, HALF:-HALF] for full, contrast in pairs]
        product = product * torch.stack([values.mean() for values in maps]).relu() ** weight  # powers need values >= 0
        a, b = avg_pool2d(a, 2), avg_pool2d(b, 2)
    return product


def similarity(
    # one image, since the last bits of batched matrix products depend on the batch size
    a: Tensor,  # (C, H, W) float64 in [0, 255]
    b: Tensor,  # (C, H, W)
) -> tuple[Tensor, Tensor]:  # (C, H, W) each
    """[0]'s index at every pixel, and its factor without luminance. Raises ValueError for images under 6 px."""
    mean_a, mean_b, square_a, square_b, product = (window_means(x) for x in (a, b, a * a, b * b, a * b))
    variances = (square_a - mean_a.square()).relu() + (square_b - mean_b.square()).relu()
    contrast = (2 * (product - mean_a * mean_b) + CONTRAST) / (variances + CONTRAST)
    return contrast * (2 * mean_a * mean_b + LUMINANCE) / (mean_a.square() + mean_b.square() + LUMINANCE), contrast


def window_means(
    x: Tensor,  # (C, H, W) float64
) -> Tensor:  # (C, H, W)
    """Means under the Gaussian window, by one matrix for the rows and one for the columns."""
    rows, columns = (window_matrix(size).to(x.device) for size in x.shape[-2:])
    return rows @ x @ columns.T


@lru_cache(maxsize=16)
def window_matrix(size: int) -> Tensor:  # (size, size) float64
    """The matrix of window means along an axis, with reflected borders.

    Raises ValueError where one reflection is not enough.
    """
    if size <= HALF:
        raise ValueError(
            f"ssim needs images of at least {HALF + 1} px for its window of {WINDOW} px, got {size}. "
            "Leave it out of protocol.reconstruction."
        )
    offsets = torch.arange(-HALF, HALF + 1, dtype=torch.float64)
    weights = (-(offsets / SIGMA).square() / 2).exp()
    indices = torch.arange(size)[:, None] + torch.arange(-HALF, HALF + 1)
    reflected = (size - 1) - ((size - 1) - indices.abs()).abs()
    return torch.zeros(size, size, dtype=torch.float64).scatter_add_(
        1, reflected, (weights / weights.sum()).expand(size, -1)
    )


def mse(
    images: Tensor,  # (B, 3, H, W) uint8
    recon: Tensor,  # (B, 3, H, W) uint8
) -> Tensor:  # (B,) float64
    """Mean squared error of pixels in [0, 1], by image."""
    a, b = as_float64_pair(images, recon)
    return ((a - b) / 255).square().mean(dim=(1, 2, 3))


def as_float64_pair(images: Tensor, recon: Tensor) -> tuple[Tensor, Tensor]:
    """Both as float64. Raises ValueError unless both are uint8 of the same shape."""
    if images.shape != recon.shape or images.dtype != recon.dtype or str(images.dtype) != "torch.uint8":
        raise ValueError(
            f"Reconstruction metrics compare uint8 images of the same shape, got {tuple(images.shape)} {images.dtype} "
            f"and {tuple(recon.shape)} {recon.dtype}. Convert with core.pixels.to_uint8, whose rule is part of the "
            "protocol."
        )
    return images.double(), recon.double()


class PSNR:
    """Peak signal-to-noise ratio of each image as a metric of a protocol, see `psnr`."""

    revision: ClassVar[int] = 2
    higher_is_better: ClassVar[bool | None] = True

    def __call__(
        self,
        images: Tensor,  # (B, 3, H, W) uint8
        recon: Tensor,  # (B, 3, H, W) uint8
    ) -> Tensor:  # (B,) float64
        """`psnr` of each image."""
        return psnr(images, recon)


class SSIM:
    """Structural similarity of each image as a metric of a protocol, see `ssim`."""

    higher_is_better: ClassVar[bool | None] = True

    def __call__(
        self,
        images: Tensor,  # (B, 3, H, W) uint8
        recon: Tensor,  # (B, 3, H, W) uint8
    ) -> Tensor:  # (B,) float64
        """`ssim` of each image."""
        return ssim(images, recon)


class MultiscaleSSIM:
    """Structural similarity at five scales of each image as a metric of a protocol, see `ms_ssim`."""

    smallest_image: ClassVar[int] = MS_SSIM_SIZE  # px
    higher_is_better: ClassVar[bool | None] = True

    def __call__(
        self,
        images: Tensor,  # (B, 3, H, W) uint8
        recon: Tensor,  # (B, 3, H, W) uint8
    ) -> Tensor:  # (B,) float64
        """`ms_ssim` of each image."""
        return ms_ssim(images, recon)


class MSE:
    """Mean squared error of each image as a metric of a protocol, see `mse`."""

    higher_is_better: ClassVar[bool | None] = False

    def __call__(
        self,
        images: Tensor,  # (B, 3, H, W) uint8
        recon: Tensor,  # (B, 3, H, W) uint8
    ) -> Tensor:  # (B,) float64
        """`mse` of each image."""
        return mse(images, recon)
