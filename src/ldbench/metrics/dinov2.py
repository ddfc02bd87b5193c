"""DINOv2 as an extractor: the class token of timm's self-supervised vision transformer.

[0] Oquab et al., DINOv2: Learning Robust Visual Features without Supervision, 2023, https://arxiv.org/abs/2304.07193
[1] Stein et al., Exposing Flaws of Generative Model Evaluation Metrics and Their Unfair Treatment of Diffusion Models,
    2023, https://arxiv.org/abs/2306.04675
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ldbench.core.pixels import validate_pixels
from ldbench.metrics.feature_set import Features


class DINOv2(nn.Module):
    """The class token after the last norm, frozen, in float32: the features of FD-DINOv2 [1].

    Images are resized to `image_size` (bicubic, antialiased) and normalized with the model's training statistics; timm
    resamples the position table, which differs from the original code in the fourth digit. `architecture`: timm's name.
    `weights`: its tensors in timm's layout. Raises ValueError for a model without a class token, for one that timm does
    not have, and for weights of another model.
    """

    revision: ClassVar[int] = 1
    provides: ClassVar[frozenset[str]] = frozenset({"features"})
    standard: ClassVar[bool] = False
    vit: Any  # timm's vision transformer
    mean: Tensor
    std: Tensor

    def __init__(self, *, architecture: str, image_size: int, weights: Mapping[str, Tensor]):
        super().__init__()
        try:
            self.vit = timm.create_model(architecture, pretrained=False, num_classes=0, dynamic_img_size=True)
        except (RuntimeError, TypeError) as error:
            raise ValueError(
                f"timm builds no vision transformer {architecture!r} ({error}). "
                "timm.list_models('*dinov2*') lists what it has."
            ) from error
        if getattr(self.vit, "cls_token", None) is None:
            raise ValueError(f"{architecture} has no class token. Choose one of timm.list_models('*dinov2*').")
        try:
            self.vit.load_state_dict({key: value for key, value in weights.items() if not key.startswith("head.")})
        except RuntimeError as error:
            message = " ".join(str(error).split())[:300]
            raise ValueError(f"These weights are not those of {architecture} in timm's layout: {message}") from error
        if image_size < 1 or image_size % self.vit.patch_embed.patch_size[0]:
            raise ValueError(
                f"image_size {image_size} is not a multiple of the patch size of {architecture}, "
                f"{self.vit.patch_embed.patch_size[0]} px."
            )
        self.image_size = image_size
        self.requires_grad_(False).eval()
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(self.vit.pretrained_cfg[name]).view(1, 3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> "DINOv2":
        """Returns the module unchanged, always in eval mode: it is frozen."""
        return super().train(False)

    @torch.no_grad()
    def extract(
        self,
        images: Tensor,  # (B, 3, H, W) uint8
    ) -> Features:
        """The features of each image. Raises ValueError for pixels that are not uint8."""
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
