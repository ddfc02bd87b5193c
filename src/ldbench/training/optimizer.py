"""AdamW with its learning rate schedule and gradient clipping, as the numbers of a recipe.

[0] Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019, https://arxiv.org/abs/1711.05101
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

SCHEDULES = ("cosine", "cosine_from_start", "linear", "constant")
FUSED = ("cpu", "cuda")  # devices with a fused AdamW


@dataclass(frozen=True)
class AdamW:
    """AdamW [0] with linear warmup, then a half cosine or a line to `min_lr`, or a constant rate.

    `cosine` and `linear` start after the warmup; `cosine_from_start` starts at the first step,
    and the warmup replaces its beginning.
    `warmup_lr`: the rate from which the warmup rises; None: it rises to `lr` in `warmup_steps` + 1 equal steps.

    Raises ValueError for an unknown schedule, and for numbers out of range.
    """

    lr: float
    betas: Sequence[float]
    eps: float
    weight_decay: float
    schedule: Literal["cosine", "cosine_from_start", "linear", "constant"]
    warmup_steps: int  # optimizer steps
    warmup_lr: float | None
    min_lr: float
    clip_norm: float | None

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ValueError(f"Unknown schedule {self.schedule!r}. Choose one of {', '.join(SCHEDULES)}.")
        if self.warmup_lr is not None and not 0 <= self.warmup_lr <= self.lr:
            raise ValueError(f"warmup_lr must lie between 0 and lr {self.lr}, or be null, got {self.warmup_lr}.")
        if self.lr <= 0 or self.min_lr < 0 or self.min_lr > self.lr:
            raise ValueError(
                f"Learning rates must satisfy 0 <= min_lr <= lr and lr > 0, got lr {self.lr} and min_lr {self.min_lr}."
            )
        if (
            self.warmup_steps < 0
            or self.weight_decay < 0
            or len(self.betas) != 2
            or not all(0 <= beta < 1 for beta in self.betas)
        ):
            raise ValueError(
                "AdamW needs warmup_steps >= 0, weight_decay >= 0 and two betas in [0, 1), "
                f"got {self.warmup_steps}, {self.weight_decay} and {list(self.betas)}."
            )
        if self.eps <= 0:
            raise ValueError(f"AdamW's eps must be positive, got {self.eps}.")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ValueError(f"clip_norm must be positive, or null for no clipping, got {self.clip_norm}.")

    def build(self, parameters: Iterable[nn.Parameter], *, fused: bool = True) -> torch.optim.Optimizer:
        """The optimizer of the trainable parameters. `fused`: a step in one kernel, where the device has it."""
        groups = weight_decay_groups(parameters, self.weight_decay)
        fused = fused and all(p.device.type in FUSED for group in groups for p in group["params"])
        return torch.optim.AdamW(
            groups, lr=self.lr, betas=(self.betas[0], self.betas[1]), eps=self.eps, fused=fused or None
        )

    def factor(self, step: int, max_steps: int) -> float:
        """The factor of `lr` at an optimizer step (from 0) of a stage of `max_steps`."""
        if self.warmup_lr is None and step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        if self.warmup_lr is not None and step + 1 < self.warmup_steps:
            first = self.warmup_lr / self.lr
            return first + (1 - first) * (step + 1) / self.warmup_steps
        if self.schedule == "constant":
            return 1.0
        done, total = (
            (step + 1, max_steps)
            if self.schedule == "cosine_from_start"
            else (step - self.warmup_steps, max_steps - self.warmup_steps)
        )
        floor, way = self.min_lr / self.lr, min(1.0, max(0, done) / max(1, total))
        if self.schedule == "linear":
            return floor + (1 - floor) * (1 - way)
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * way))


def weight_decay_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Optimizer groups of the trainable tensors: those of two or more dimensions are decayed, vectors
    and scalars are not.
    """
    trainable = [p for p in parameters if p.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
