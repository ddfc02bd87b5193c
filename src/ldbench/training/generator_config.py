"""GeneratorTrainingConfig: the settings of a generator's training."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ldbench.training.optimizer import AdamW

TRAINING_REVISION = 2  # raised when a change of the training module changes the trained weights
OTHER_KEYS = ("name", "weights", "stats", "class_dropout", "backbone", "losses")  # of a generator's config


@dataclass(frozen=True)
class GeneratorTrainingConfig:
    """The settings of a generator's training; conf/course/default.yaml explains them.

    Raises ValueError for invalid ones.
    """

    max_steps: int  # optimizer steps
    batch_size: int  # latents, over all processes
    accumulate: int  # batches in an optimizer step
    ema_decays: Sequence[float]
    exported_decay: float | None
    optimizer: AdamW
    name: str = "generator"

    def __post_init__(self) -> None:
        for key, least in (("max_steps", 0), ("batch_size", 1), ("accumulate", 1)):
            value = getattr(self, key)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"generator.{key} must be a whole number of at least {least}, got {value!r}.")
        if not all(isinstance(decay, float) and 0 < decay < 1 for decay in self.ema_decays) or len(
            set(self.ema_decays)
        ) < len(self.ema_decays):
            raise ValueError(
                f"generator.ema_decays must be different numbers between 0 and 1, got {list(self.ema_decays)}."
            )
        if self.exported_decay is not None and self.exported_decay not in self.ema_decays:
            raise ValueError(
                f"generator.exported_decay must be one of generator.ema_decays, {list(self.ema_decays)}, "
                f"or null for the last weights, got {self.exported_decay}."
            )

    @classmethod
    def from_config(cls, node: Mapping[str, Any], *, optimizer: AdamW) -> "GeneratorTrainingConfig":
        """The training settings of a generator's plain config node. Raises ValueError for unknown keys."""
        known = [field.name for field in fields(cls)]
        for key in node.keys() - {*known, *OTHER_KEYS}:
            close = difflib.get_close_matches(key, [*known, *OTHER_KEYS], n=1)
            hint = f" Did you mean {close[0]}?" if close else f" Known: {', '.join(sorted([*known, *OTHER_KEYS]))}."
            raise ValueError(f"There is no config key generator.{key}.{hint}")
        return cls(**{key: value for key, value in node.items() if key not in OTHER_KEYS} | {"optimizer": optimizer})
