"""Features of timm's pretrained networks: the class token, the mean over positions, or the attention pooling.

[0] Oquab et al., DINOv2: Learning Robust Visual Features without Supervision, 2023, https://arxiv.org/abs/2304.07193
[1] Stein et al., Exposing Flaws of Generative Model Evaluation Metrics and Their Unfair Treatment of Diffusion Models,
    2023, https://arxiv.org/abs/2306.04675
[2] Yang et al., FD-loss, 2026, https://arxiv.org/abs/2604.28190 (six extractors, whose distances it compares by ratios)
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import timm
import torch
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from ldbench.core.pixels import validate_pixels
from ldbench.metrics.feature_set import Features


class TimmFeatures(nn.Module, ABC):
    """Features of one of timm's networks, frozen, in float32.

    Images are resized to `image_size` (bicubic, antialiased, within [0, 1]) and normalized with the statistics of the
    model's training.
    """

    revision: ClassVar[int] = 1
    provides: ClassVar[frozenset[str]] = frozenset({"features"})
    standard: ClassVar[bool] = False
    network: Any  # timm's
    mean: Tensor
    std: Tensor

    def __init__(self, *, network: nn.Module, image_size: int):
        super().__init__()
        self.network = network
        self.image_size = image_size
        self.requires_grad_(False).eval()
        config = cast(dict[str, Any], network.pretrained_cfg)
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(config[name]).view(1, 3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> "TimmFeatures":
        """Returns the module unchanged, always in eval mode: it is frozen."""
        return super().train(False)

    @abstractmethod
    def pool(
        self,
        x: Tensor,  # (B, 3, image_size, image_size), normalized
    ) -> Tensor:  # (B, D)
        """The features of normalized images."""

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
            return Features(self.pool((x - self.mean) / self.std).float())

    def features(
        self,
        images: Tensor,  # (B, 3, H, W) uint8
    ) -> Tensor:  # (B, D) float32
        """The features alone."""
        return self.extract(images).features


class TransformerFeatures(TimmFeatures):
    """Features of a vision transformer that has what they are read from.

    The position table is resampled to `image_size` as timm loads it, which differs from DINOv2's own code in the fourth
    digit. A size that the patches do not divide is allowed, as in [2]: the last pixels are then in no patch.
    `architecture`: timm's name. `weights`: its tensors in timm's layout. Raises ValueError for a model without what is
    read, for one that timm does not have, and for weights of another model.
    """

    attribute: ClassVar[str]  # of timm's network, which it must have
    needed: ClassVar[str]  # what this is
    example: ClassVar[str]  # the names of models that have it, and one of them

    def __init__(self, *, architecture: str, image_size: int, weights: Mapping[str, Tensor]):
        vit = build_vit(architecture, image_size)
        if getattr(vit, self.attribute, None) is None:
            raise ValueError(f"{architecture} has no {self.needed}. Choose one of {self.example}.")
        load_weights(vit, architecture, resized_positions(vit, weights))
        super().__init__(network=vit, image_size=image_size)


class ClassToken(TransformerFeatures):
    """The class token of a vision transformer after its last norm: DINOv2's makes FD-DINOv2 [1]."""

    attribute = "cls_token"
    needed = "class token"
    example = "timm.list_models('vit_*'), such as vit_large_patch14_dinov2.lvd142m"

    def pool(
        self,
        x: Tensor,  # (B, 3, image_size, image_size), normalized
    ) -> Tensor:  # (B, D)
        """The class token."""
        return self.network.forward_features(x)[:, 0]


class AttentionPooled(TransformerFeatures):
    """The attention pooling of a vision transformer that was trained with one, such as SigLIP's."""

    attribute = "attn_pool"
    needed = "attention pooling"
    example = "timm.list_models('*siglip*'), such as vit_so400m_patch16_siglip_256.v2_webli"

    def pool(
        self,
        x: Tensor,  # (B, 3, image_size, image_size), normalized
    ) -> Tensor:  # (B, D)
        """The pooled tokens."""
        return self.network.forward_head(self.network.forward_features(x), pre_logits=True)


class PositionMean(TimmFeatures):
    """The mean over all positions of a convolutional network's last feature map, before the norm of its classifier.

    `architecture`: timm's name. `weights`: its tensors in timm's layout. Raises ValueError for a model that timm does
    not have, for a vision transformer, and for weights of another model.
    """

    def __init__(self, *, architecture: str, image_size: int, weights: Mapping[str, Tensor]):
        network = build_network(architecture, num_classes=0, global_pool="")
        if isinstance(network, VisionTransformer):
            raise ValueError(
                f"{architecture} is a vision transformer, which has tokens and no feature map. Choose a convolutional "
                "network, such as convnextv2_base.fcmae_ft_in22k_in1k."
            )
        setattr(network, classifier_of(network), nn.Identity())
        load_weights(network, architecture, weights)
        super().__init__(network=network, image_size=image_size)

    def pool(
        self,
        x: Tensor,  # (B, 3, image_size, image_size), normalized
    ) -> Tensor:  # (B, D)
        """The mean over positions."""
        return self.network.forward_features(x).mean(dim=(2, 3))


def build_network(architecture: str, **settings: Any) -> Any:
    """timm's network of this name without weights. Raises ValueError for a name that timm does not have."""
    try:
        return timm.create_model(architecture, pretrained=False, **settings)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"timm builds no network {architecture!r} ({error}). timm.list_models(pretrained=True) lists what it has."
        ) from error


def build_vit(architecture: str, image_size: int) -> Any:
    """timm's vision transformer of this name, for images of a size (px).

    Raises ValueError for another network, and for a size below that of a patch.
    """
    with torch.device("meta"):
        patch = getattr(getattr(build_network(architecture, num_classes=0), "patch_embed", None), "patch_size", None)
    if patch is None:
        raise ValueError(f"{architecture} is no vision transformer. timm.list_models('vit_*') lists those of timm.")
    if image_size < patch[0]:
        raise ValueError(
            f"image_size {image_size} is smaller than a patch of {architecture}, {patch[0]} px. Give that or more."
        )
    return build_network(architecture, num_classes=0, img_size=image_size)


def resized_positions(vit: Any, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights with the position table resampled to the network's grid."""
    table = weights.get("pos_embed")
    prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
    if table is None or table.ndim != 3 or table.shape[1] == vit.pos_embed.shape[1]:
        return dict(weights)
    side = round((table.shape[1] - prefix) ** 0.5)
    if side * side + prefix != table.shape[1]:  # of another network: loading says so
        return dict(weights)
    grid = list(vit.patch_embed.grid_size)
    return {**weights, "pos_embed": resample_abs_pos_embed(table, new_size=grid, num_prefix_tokens=prefix)}


def classifier_of(network: Any) -> str:
    """The name of the layers behind the features."""
    name = network.pretrained_cfg["classifier"]
    return str(name if isinstance(name, str) else name[0]).partition(".")[0]


def load_weights(network: nn.Module, architecture: str, weights: Mapping[str, Tensor]) -> None:
    """Loads tensors, without those of a classifier. Raises ValueError for those of another network."""
    classifier = f"{classifier_of(network)}."
    try:
        network.load_state_dict({key: value for key, value in weights.items() if not key.startswith(classifier)})
    except RuntimeError as error:
        message = " ".join(str(error).split())[:300]
        raise ValueError(f"These weights are not those of {architecture} in timm's layout: {message}") from error
