"""Perceptual distances between an image and its reconstruction.

[0] Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, 2018,
    https://arxiv.org/abs/1801.03924
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from ldbench.core.pixels import from_uint8, validate_pixels
from ldbench.layers.lpips import LPIPSNetwork, from_taming, from_torchvision

STANDARD = "397923af"  # first digits of the sha256 of torchvision's vgg16-397923af.pth


class VGGDistance(nn.Module):
    """The distance of LPIPS [0] on any weights of VGG16 and heads, by image; only `LPIPS` has the standard weights.

    `weights`: torchvision's VGG16 with separate linear `heads`, or with `heads` null both in the layout of
    taming-transformers. Raises ValueError when a tensor is missing or of another shape.
    """

    revision: ClassVar[int] = 1
    higher_is_better: ClassVar[bool | None] = None  # not ranked: it depends on whose weights these are

    def __init__(self, *, weights: Mapping[str, Tensor], heads: Mapping[str, Tensor] | None):
        super().__init__()
        self.network = LPIPSNetwork(dropout=0.0)
        try:
            self.network.load_state_dict(
                from_taming(dict(weights) if heads is None else from_torchvision(weights, heads))
            )
        except RuntimeError as error:
            raise ValueError(f"These weights are not VGG16's: {error}") from error
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(
        self,
        images: Tensor,  # (B, 3, H, W) uint8
        recon: Tensor,  # (B, 3, H, W) uint8
    ) -> Tensor:  # (B,) float64 on the CPU
        """The distance of each pair. Raises ValueError for pixels that are not uint8, and for images under 16 px."""
        validate_pixels(images)
        validate_pixels(recon)
        if min(images.shape[-2:]) < 16:
            raise ValueError(
                f"VGG16 needs images of at least 16 px, got {images.shape[-2]}x{images.shape[-1]}. "
                "Leave this metric out of the protocol."
            )
        device = self.network.shift.device
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            return self.network(from_uint8(images.to(device)), from_uint8(recon.to(device))).double().cpu()


class LPIPS(VGGDistance):
    """LPIPS [0] on VGG16, by image, with the standard weights only.

    `sha256`: of the weight file of VGG16, which must be torchvision's.
    """

    higher_is_better: ClassVar[bool | None] = False

    def __init__(self, *, weights: Mapping[str, Tensor], heads: Mapping[str, Tensor], sha256: str):
        if not sha256.startswith(STANDARD):
            raise ValueError(
                f"These are not torchvision's weights of VGG16 (sha256 {sha256[:8]}, expected {STANDARD}): "
                "with them the metric "
                "is not LPIPS. Use vgg16-397923af.pth, or choose the metric features_vgg16 in the protocol."
            )
        super().__init__(weights=weights, heads=heads)
