"""Reconstruction metrics: one number for each image, from uint8 pixels, in float64.

Each image is measured by itself, so no figure depends on the batch size or the order. torchmetrics does the work.

[0] Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity, 2004, https://doi.org/10.1109/TIP.2003.819861
[1] Wang et al., Multiscale Structural Similarity for Image Quality Assessment, 2003, https://doi.org/10.1109/ACSSC.2003.1292216
"""

from torch import Tensor
from torch.nn.functional import avg_pool2d
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # weights of [1], from the finest

MS_SSIM_SIZE = 161  # px: smaller images are smaller than the window at the fifth scale


def psnr(
    images: Tensor,  # (B, 3, H, W) uint8
    recon: Tensor,  # (B, 3, H, W) uint8
) -> Tensor:  # (B,) float64
    """Peak signal-to-noise ratio in dB, by image: 10 log10(255^2 / mse); infinite where nothing differs."""
    a, b = comparable(images, recon)
    return peak_signal_noise_ratio(b, a, data_range=255.0, reduction="none", dim=(1, 2, 3))


def ssim(
    images: Tensor,  # (B, 3, H, W) uint8
    recon: Tensor,  # (B, 3, H, W) uint8
) -> Tensor:  # (B,) float64
    """Structural similarity [0] in [-1, 1], by image: an 11x11 Gaussian window with sigma 1.5 over each colour channel.

    torchmetrics averages over every pixel, with mirrored borders; [0] leaves the borders out. Images must be 6 px or larger.
    """
    a, b = comparable(images, recon)
    return structural_similarity_index_measure(b, a, data_range=255.0, reduction="none", sigma=1.5, kernel_size=11).reshape(len(a))


def ms_ssim(
    images: Tensor,  # (B, 3, H, W) uint8
    recon: Tensor,  # (B, 3, H, W) uint8
) -> Tensor:  # (B,) float64
    """Structural similarity at five scales [1], by image, in [0, 1]: contrast and structure at each, brightness at the coarsest.

    torchmetrics measures each scale; its own product of them refuses images under 176 px.
    Raises ValueError for images under 161 px, for which there is none.
    """
    a, b = comparable(images, recon)
    if min(a.shape[-2:]) < MS_SSIM_SIZE:
        raise ValueError(
            f"ms_ssim has five scales, which images of {MS_SSIM_SIZE} px or more have, got {a.shape[-2]}x{a.shape[-1]}. "
            "Leave it out of protocol.reconstruction; ssim takes these images."
        )
    found = a.new_ones(len(a))
    for scale, weight in enumerate(SCALES):
        whole, contrast = structural_similarity_index_measure(
            b, a, data_range=255.0, reduction="none", sigma=1.5, kernel_size=11, return_contrast_sensitivity=True
        )
        last = scale == len(SCALES) - 1
        found = found * (whole if last else contrast).reshape(len(a)).relu() ** weight  # a negative number has no power
        a, b = avg_pool2d(a, 2), avg_pool2d(b, 2)
    return found


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
