"""DINOv2 as an extractor: the class token of a vision transformer out of timm that learned without labels.

[0] Oquab et al., DINOv2: Learning Robust Visual Features without Supervision, 2023, https://arxiv.org/abs/2304.07193
[1] Stein et al., Exposing Flaws of Generative Model Evaluation Metrics and Their Unfair Treatment of Diffusion Models, 2023, https://arxiv.org/abs/2306.04675
"""

from collections.abc import Mapping
from typing import ClassVar

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ldbench.core.pixels import validate_pixels
from ldbench.metrics.feature_set import Features


class DINOv2(nn.Module):
    """The class token behind the last norm, frozen, in float32: the features of FD-DINOv2 [1].

    Images are resized to `image_size` (bicubic, filtered) and normalised as the model's own were; its position table is resampled by timm,
    which differs in the fourth digit from the original code's.
    `architecture`: timm's name. `weights`: its tensors in timm's layout.
    Raises ValueError for a model without a class token or that timm does not know, and for weights that are not its own.
    """

    revision: ClassVar[int] = 1
    provides: ClassVar[frozenset[str]] = frozenset({"features"})
    standard: ClassVar[bool] = False

    def __init__(self, *, architecture: str, image_size: int, weights: Mapping[str, Tensor]):
        super().__init__()
        try:
            self.vit = timm.create_model(architecture, pretrained=False, num_classes=0, dynamic_img_size=True)
        except (RuntimeError, TypeError) as error:
            raise ValueError(
                f"timm builds no vision transformer {architecture!r} ({error}). timm.list_models('*dinov2*') lists those it has."
            ) from error
        if getattr(self.vit, "cls_token", None) is None:
            raise ValueError(
                f"{architecture} has no class token to look at. Choose one of timm.list_models('*dinov2*')."
            )
        try:
            self.vit.load_state_dict({key: value for key, value in weights.items() if not key.startswith("head.")})
        except RuntimeError as error:
            told = " ".join(str(error).split())[:300]
            raise ValueError(f"These weights are not those of {architecture} in timm's layout: {told}") from error
        if image_size < 1 or image_size % self.vit.patch_embed.patch_size[0]:
            raise ValueError(
                f"image_size {image_size} is no multiple of the patches of {architecture}, {self.vit.patch_embed.patch_size[0]} px."
            )
        self.image_size = image_size
        self.requires_grad_(False).eval()
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(self.vit.pretrained_cfg[name]).view(1, 3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> "DINOv2":
        """Itself, in eval mode always: it is frozen."""
        return super().train(False)

    @torch.no_grad()
    def extract(
        self,
        images: Tensor,  # (B, 3, H, W) uint8
    ) -> Features:
        """What it sees in each image. Raises ValueError for pixels that are not uint8."""
        validate_pixels(images)
        x = images.float() / 255
        size = (self.image_size, self.image_size)
        if x.shape[-2:] != size:
            x = F.interpolate(x, size=size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            return Features(self.vit.forward_features((x - self.mean) / self.std)[:, 0].float())

    def features(
        self,
        images: Tensor,  # (B, 3, H, W) uint8
    ) -> Tensor:  # (B, D) float32
        """The features alone."""
        return self.extract(images).features
