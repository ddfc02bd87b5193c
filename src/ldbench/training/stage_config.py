"""Stage: the settings of one phase of a tokenizer's recipe."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from ldbench.training.equivariance import Equivariance
from ldbench.training.latent_corruption import LatentNoise, TokenMask
from ldbench.training.mask_schedules import Constant, MaskRatio
from ldbench.training.optimizer import AdamW

TRAINING_REVISION = 4  # raised when a change of the training module changes the trained weights

Part = Literal["trainable", "frozen"]
# settings of a stage that change nothing at zero strength
REGULARIZATION = {"latent_noise": LatentNoise, "token_mask": TokenMask, "equivariance": Equivariance}


@dataclass(frozen=True)
class Stage:
    """One phase of a recipe; conf/stage/default.yaml explains its settings. Raises ValueError for invalid ones."""

    name: str
    image_size: int  # px
    max_steps: int  # optimizer steps
    batch_size: int  # images, over all processes
    accumulate: int  # batches in an optimizer step
    mask_ratio: MaskRatio
    latent: Literal["sample", "mean"]
    crop: Literal["area", "side"]
    crop_scale: Sequence[float] | None
    flip: float
    encoder: Part
    decoder: Part
    ema_decay: float | None
    optimizer: AdamW
    losses: Mapping[str, Any]
    latent_noise: LatentNoise = field(default_factory=LatentNoise)
    token_mask: TokenMask = field(default_factory=TokenMask)
    equivariance: Equivariance = field(default_factory=Equivariance)

    def __post_init__(self) -> None:
        for key in ("image_size", "max_steps", "batch_size", "accumulate"):
            if not isinstance(getattr(self, key), int):
                raise ValueError(
                    f"tokenizer.stages.{self.name}.{key} must be a whole number, got {getattr(self, key)!r}."
                )
        if not isinstance(self.flip, int | float) or not 0 <= self.flip <= 1:
            raise ValueError(f"tokenizer.stages.{self.name}.flip must be a number in [0, 1], got {self.flip!r}.")
        for key, least in (("image_size", 1), ("max_steps", 0), ("batch_size", 1), ("accumulate", 1)):
            if getattr(self, key) < least:
                raise ValueError(
                    f"tokenizer.stages.{self.name}.{key} must be at least {least}, got {getattr(self, key)}."
                )
        for key, choices in (
            ("latent", ("sample", "mean")),
            ("crop", ("area", "side")),
            ("encoder", ("trainable", "frozen")),
            ("decoder", ("trainable", "frozen")),
        ):
            if getattr(self, key) not in choices:
                raise ValueError(
                    f"tokenizer.stages.{self.name}.{key} must be {' or '.join(choices)}, got {getattr(self, key)!r}."
                )
        if self.crop_scale is not None and not (
            len(self.crop_scale) == 2 and 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1
        ):
            raise ValueError(
                f"tokenizer.stages.{self.name}.crop_scale must be [least, most] in (0, 1], or null, "
                f"got {list(self.crop_scale)}."
            )
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(
                f"tokenizer.stages.{self.name}.ema_decay must lie between 0 and 1, or be null, got {self.ema_decay}."
            )
        if self.equivariance.active and self.mask_ratio.largest > 0:
            raise ValueError(
                f"Stage {self.name} has masks, and tokenizer.stages.{self.name}.equivariance transforms whole latents. "
                f"Set mask_ratio=0, or equivariance.probability=0."
            )
        if self.encoder == self.decoder == "frozen" and self.max_steps:
            raise ValueError(
                f"Stage {self.name} trains neither encoder nor decoder. Set max_steps=0, or make one of them trainable."
            )

    @classmethod
    def from_config(
        cls, name: str, node: Mapping[str, Any], *, optimizer: AdamW, mask_ratio: MaskRatio | float
    ) -> "Stage":
        """The stage of a plain config node. Raises ValueError for unknown keys."""
        known = {entry.name for entry in fields(cls)} - {"name"}
        for key in node.keys() - known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean {close[0]}?" if close else f" Known: {', '.join(sorted(known))}."
            raise ValueError(f"There is no config key tokenizer.stages.{name}.{key}.{hint}")
        regularization = {
            key: build_regularization(f"tokenizer.stages.{name}", key, node[key])
            for key in REGULARIZATION
            if key in node
        }
        try:
            schedule = mask_ratio if hasattr(mask_ratio, "draw") else Constant(mask_ratio)
        except ValueError as error:
            raise ValueError(f"tokenizer.stages.{name}: {error}") from error
        return cls(name=name, **{**node, **regularization, "optimizer": optimizer, "mask_ratio": schedule})


def build_regularization(place: str, key: str, node: Mapping[str, Any]) -> LatentNoise | TokenMask | Equivariance:
    """A regularization of a plain config node. Raises ValueError for unknown keys, and for numbers out of range."""
    kind = REGULARIZATION[key]
    known = {entry.name for entry in fields(kind)}
    for name in node.keys() - known:
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = f" Did you mean {close[0]}?" if close else f" Known: {', '.join(sorted(known))}."
        raise ValueError(f"There is no config key {place}.{key}.{name}.{hint}")
    try:
        return kind(**node)
    except ValueError as error:
        raise ValueError(f"{place}.{error}") from error


def described_stage(node: Mapping[str, Any]) -> dict[str, Any]:
    """A stage's plain config node for a recipe: without regularization that changes nothing."""
    return {
        key: value for key, value in node.items() if key not in REGULARIZATION or REGULARIZATION[key](**value).active
    }
