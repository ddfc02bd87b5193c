"""timm's plain vision transformers by their names."""

from typing import Any

import timm
from timm.models.vision_transformer import VisionTransformer


def build_vit(architecture: str, **settings: Any) -> VisionTransformer:
    """timm's model of this name without heads and weights; `settings` are of its constructor.

    Raises ValueError for a name that timm does not have or that is not a plain vision transformer, and for settings
    that it does not take.
    """
    try:
        # an empty global_pool keeps the last norm over all tokens, for any pooling in the model's training
        vit = timm.create_model(architecture, pretrained=False, num_classes=0, global_pool="", **settings)
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        made = f" with {settings}" if settings else ""
        raise ValueError(
            f"timm builds no vision transformer {architecture!r}{made} ({error}). "
            "timm.list_models('vit_*', pretrained=True) lists those it has."
        ) from error
    if not isinstance(vit, VisionTransformer):
        raise ValueError(
            f"{architecture} is a {type(vit).__name__}. "
            "Expected one of timm's plain vision transformers, such as vit_base_patch16_224.mae."
        )
    return vit
