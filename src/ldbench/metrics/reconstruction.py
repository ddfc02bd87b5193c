"""Reconstruction metrics: one number for each image, from uint8 pixels, in float64.

Each image is measured by itself, so no figure depends on the batch size or the order. Every figure is torchmetrics', to 1e-12; its structural
similarity is written anew here because its window of 121 places is convolved in float64, which takes a second for an image of 256 px.

[0] Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity, 2004, https://doi.org/10.1109/TIP.2003.819861
[1] Wang et al., Multiscale Structural Similarity for Image Quality Assessment, 2003, https://doi.org/10.1109/ACSSC.2003.1292216
"""

from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

WINDOW, SIGMA = 11, 1.5  # px, of [0]
HALF = WINDOW // 2
BRIGHTNESS, CONTRAST = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # [0]'s constants for levels
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # weights of [1], from the finest

MS_SSIM_SIZE = 161  # px: smaller images are smaller than the window at the fifth scale


def psnr(
    images: Tensor,  # (B, 3, H, W) uint8
    recon: Tensor,  # (B, 3, H, W) uint8
) -> Tensor:  # (B,) float64
    """Peak signal-to-noise ratio in dB, by image: 10 log10(255^2 / mse); infinite where nothing differs."""
    from torchmetrics.functional.image import (
        peak_signal_noise_ratio,  # takes seconds to load, and a mistake is answered before
    )

    a, b = comparable(images, recon)
    return peak_signal_noise_ratio(b, a, data_range=255.0, reduction="none", dim=(1, 2, 3))


def ssim(
    images: Tensor,  # (B, 3, H, W) uint8
    recon: Tensor,  # (B, 3, H, W) uint8
) -> Tensor:  # (B,) float64
    """Structural similarity [0] in [-1, 1], by image: an 11x11 Gaussian window with sigma 1.5 over each colour channel.

    The mean is over every pixel, with mirrored borders, as torchmetrics'; [0] leaves the borders out. Raises ValueError for images under 6 px.
    """
    return torch.stack([similarity(*pair)[0].mean() for pair in zip(*comparable(images, recon), strict=True)])


def ms_ssim(
    images: Tensor,  # (B, 3, H, W) uint8
    recon: Tensor,  # (B, 3, H, W) uint8
) -> Tensor:  # (B,) float64
    """Structural similarity at five scales [1], by image, in [0, 1]: contrast and structure at each, brightness at the coarsest.

    As torchmetrics', which refuses images under 176 px. Raises ValueError for images under 161 px, for which there is none.
    """
    a, b = comparable(images, recon)
    if min(a.shape[-2:]) < MS_SSIM_SIZE:
        raise ValueError(
            f"ms_ssim has five scales, which images of {MS_SSIM_SIZE} px or more have, got {a.shape[-2]}x{a.shape[-1]}. "
            "Leave it out of protocol.reconstruction; ssim takes these images."
        )
    found = a.new_ones(len(a))
    for scale, weight in enumerate(SCALES):
        pairs = [similarity(*pair) for pair in zip(a, b, strict=True)]
        last = scale == len(SCALES) - 1
        seen = [
            whole if last else contrast[..., HALF:-HALF, HALF:-HALF] for whole, contrast in pairs
        ]  # as torchmetrics, without borders
        found = found * torch.stack([each.mean() for each in seen]).relu() ** weight  # a negative number has no power
        a, b = avg_pool2d(a, 2), avg_pool2d(b, 2)
    return found


def similarity(
    a: Tensor,  # (C, H, W) float64, levels: one image, as products of several depend on how many they are, in their last bits
    b: Tensor,  # (C, H, W)
) -> tuple[Tensor, Tensor]:  # (C, H, W) each
    """[0]'s index at every pixel, and its factor without brightness. Raises ValueError for images under 6 px."""
    mean_a, mean_b, square_a, square_b, product = (smoothed(x) for x in (a, b, a * a, b * b, a * b))
    variances = (square_a - mean_a.square()).relu() + (square_b - mean_b.square()).relu()
    contrast = (2 * (product - mean_a * mean_b) + CONTRAST) / (variances + CONTRAST)
    return contrast * (2 * mean_a * mean_b + BRIGHTNESS) / (mean_a.square() + mean_b.square() + BRIGHTNESS), contrast


def smoothed(
    x: Tensor,  # (C, H, W) float64
) -> Tensor:  # (C, H, W)
    """Means under the Gaussian window: a matrix for the rows and one for the columns."""
    rows, columns = (window_matrix(size).to(x.device) for size in x.shape[-2:])
    return rows @ x @ columns.T


@lru_cache(maxsize=16)
def window_matrix(size: int) -> Tensor:  # (size, size) float64
    """What means along an axis of some pixels are made of, borders mirrored. Raises ValueError where mirroring once does not reach."""
    if size <= HALF:
        raise ValueError(
            f"ssim needs images of at least {HALF + 1} px, for its window of {WINDOW} px, got {size}. Leave it out of protocol.reconstruction."
        )
    offsets = torch.arange(-HALF, HALF + 1, dtype=torch.float64)
    weights = (-(offsets / SIGMA).square() / 2).exp()
    places = torch.arange(size)[:, None] + torch.arange(-HALF, HALF + 1)
    mirrored = (size - 1) - ((size - 1) - places.abs()).abs()
    return torch.zeros(size, size, dtype=torch.float64).scatter_add_(
        1, mirrored, (weights / weights.sum()).expand(size, -1)
    )


def mse(
    images: Tensor,  # (B, 3, H, W) uint8
    recon: Tensor,  # (B, 3, H, W) uint8
) -> Tensor:  # (B,) float64
    """Mean squared error of pixels in [0, 1], by image."""
    a, b = comparable(images, recon)
    return ((a - b) / 255).square().mean(dim=(1, 2, 3))


def comparable(images: Tensor, recon: Tensor) -> tuple[Tensor, Tensor]:
    """Both as float64. Raises ValueError unless both are uint8 of one shape."""
    if images.shape != recon.shape or images.dtype != recon.dtype or str(images.dtype) != "torch.uint8":
        raise ValueError(
            f"Reconstruction metrics compare uint8 images of one shape, got {tuple(images.shape)} {images.dtype} and "
            f"{tuple(recon.shape)} {recon.dtype}. Convert with core.pixels.to_uint8, whose rule is part of the protocol."
        )
    return images.double(), recon.double()


class PSNR:
    """Peak signal-to-noise ratio of each image as a metric of a protocol, see `psnr`."""

    higher_is_better: ClassVar[bool | None] = True

    def __call__(
        self,
        images: Tensor,  # (B, 3, H, W) uint8
        recon: Tensor,  # (B, 3, H, W) uint8
    ) -> Tensor:  # (B,) float64
        return psnr(images, recon)


class SSIM:
    """Structural similarity of each image as a metric of a protocol, see `ssim`."""

    higher_is_better: ClassVar[bool | None] = True

    def __call__(
        self,
        images: Tensor,  # (B, 3, H, W) uint8
        recon: Tensor,  # (B, 3, H, W) uint8
    ) -> Tensor:  # (B,) float64
        return ssim(images, recon)


class MultiscaleSSIM:
    """Structural similarity at five scales of each image as a metric of a protocol, see `ms_ssim`."""

    higher_is_better: ClassVar[bool | None] = True

    def __call__(
        self,
        images: Tensor,  # (B, 3, H, W) uint8
        recon: Tensor,  # (B, 3, H, W) uint8
    ) -> Tensor:  # (B,) float64
        return ms_ssim(images, recon)


class MSE:
    """Mean squared error of each image as a metric of a protocol, see `mse`."""

    higher_is_better: ClassVar[bool | None] = False

    def __call__(
        self,
        images: Tensor,  # (B, 3, H, W) uint8
        recon: Tensor,  # (B, 3, H, W) uint8
    ) -> Tensor:  # (B,) float64
        return mse(images, recon)
