"""Optimizers with their schedule and clipping, as the numbers that a recipe names.

[0] Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019, https://arxiv.org/abs/1711.05101
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn


@dataclass(frozen=True)
class AdamW:
    """AdamW [0] with linear warm-up, then a half cosine to `min_lr` or a constant rate.

    Raises ValueError for an unknown schedule, and for numbers out of range.
    """

    lr: float
    betas: Sequence[float]
    weight_decay: float
    schedule: Literal["cosine", "constant"]
    warmup_steps: int  # optimizer steps
    min_lr: float
    clip_norm: float | None

    def __post_init__(self) -> None:
        if self.schedule not in ("cosine", "constant"):
            raise ValueError(f"Unknown schedule {self.schedule!r}. Choose cosine or constant.")
        if self.lr <= 0 or self.min_lr < 0 or self.min_lr > self.lr:
            raise ValueError(f"Learning rates must satisfy 0 <= min_lr <= lr and lr > 0, got lr {self.lr} and min_lr {self.min_lr}.")
        if self.warmup_steps < 0 or self.weight_decay < 0 or len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(
                "AdamW needs warmup_steps >= 0, weight_decay >= 0 and two betas in [0, 1), "
                f"got {self.warmup_steps}, {self.weight_decay} and {list(self.betas)}."
            )
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ValueError(f"clip_norm must be positive, or null for no clipping, got {self.clip_norm}.")

    def build(self, modules: Iterable[nn.Module]) -> torch.optim.Optimizer:
        """The optimizer of all trainable parameters in `modules`."""
        groups = weight_decay_groups(modules, self.weight_decay)
        return torch.optim.AdamW(groups, lr=self.lr, betas=(self.betas[0], self.betas[1]))

    def factor(self, step: int, max_steps: int) -> float:
        """What `lr` is multiplied by at an optimizer step (from 0) of a stage of `max_steps`."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        if self.schedule == "constant":
            return 1.0
        passed = (step - self.warmup_steps) / max(1, max_steps - self.warmup_steps)
        floor = self.min_lr / self.lr
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, passed)))


def weight_decay_groups(modules: Iterable[nn.Module], weight_decay: float) -> list[dict]:
    """Optimizer groups: trainable tensors of two or more dimensions are decayed, vectors and scalars are not."""
    trainable = [p for module in modules for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
