"""Mask ratios: the fraction of the patches that a training step hides.

[0] Li et al., MAGE: MAsked Generative Encoder, 2023, https://arxiv.org/abs/2211.09117 (truncated-normal ratios)
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from ldbench.core.distributed import draw_for_global_batch


class MaskRatio(Protocol):
    """A distribution or schedule of mask ratios."""

    @property
    def largest(self) -> float:
        """The largest ratio that it may draw."""
        ...

    def draw(self, step: int, num_images: int) -> float | Tensor:
        """The ratio at an optimizer step (from 0): one number, or (B,)."""
        ...


@dataclass(frozen=True)
class Constant:
    """The same ratio at every step. Raises ValueError unless 0 <= ratio < 1."""

    ratio: float

    def __post_init__(self) -> None:
        if isinstance(self.ratio, bool) or not isinstance(self.ratio, int | float):
            raise ValueError(
                f"mask_ratio must be a number, or a schedule such as /mask@...: truncated_normal, got {self.ratio!r}."
            )
        if not 0 <= self.ratio < 1:
            raise ValueError(f"mask_ratio must lie in [0, 1), got {self.ratio}.")

    @property
    def largest(self) -> float:
        """The largest ratio that it may draw."""
        return self.ratio

    def draw(self, step: int, num_images: int) -> float:
        """The ratio at an optimizer step (from 0)."""
        return self.ratio


@dataclass(frozen=True)
class TruncatedNormal:
    """A normal of `mean` and `std` truncated to [low, high], drawn at each step from torch's global stream [0].

    `per`: `batch` draws one ratio for all images (official), `image` one for each.
    Raises ValueError unless 0 <= low <= high <= 1 and std > 0.
    """

    low: float
    high: float
    mean: float
    std: float
    per: Literal["batch", "image"]

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1 or self.std <= 0:
            raise ValueError(
                "A truncated normal needs 0 <= low <= high <= 1 and std > 0, "
                f"got {self.low}, {self.high} and {self.std}."
            )
        if self.per not in ("batch", "image"):
            raise ValueError(f"Unknown per {self.per!r}. Choose batch or image.")
        if not torch.isfinite(self.unclamped(torch.tensor(0.5, dtype=torch.float64))):
            raise ValueError(
                f"A normal of mean {self.mean} and std {self.std} has no mass between {self.low} and {self.high}. "
                "Move its mean nearer."
            )

    @property
    def largest(self) -> float:
        """The largest ratio that it may draw."""
        return self.high

    def draw(self, step: int, num_images: int) -> float | Tensor:
        """The ratio at an optimizer step (from 0)."""
        if self.per == "batch":
            return self.quantile(torch.rand((), dtype=torch.float64)).item()
        return self.quantile(draw_for_global_batch(lambda count: torch.rand(count, dtype=torch.float64), num_images))

    def quantile(
        self,
        u: Tensor,  # in [0, 1]
    ) -> Tensor:
        """The quantile function, in float64."""
        return self.unclamped(u.double()).clamp(self.low, self.high)

    def unclamped(self, u: Tensor) -> Tensor:
        """The quantile up to rounding, computed in the lower tail, where small probabilities are accurate;
        the upper is mirrored.
        """
        mirrored = self.mean < (self.low + self.high) / 2
        ends = (-self.high, -self.low) if mirrored else (self.low, self.high)
        mean, probability = (-self.mean, 1 - u) if mirrored else (self.mean, u)
        scaled = torch.tensor([(end - mean) / self.std for end in ends], dtype=torch.float64)
        below, above = torch.special.erfc(-scaled / math.sqrt(2)) / 2
        quantile = mean + self.std * torch.special.ndtri(below + probability * (above - below))
        return -quantile if mirrored else quantile


@dataclass(frozen=True)
class Linear:
    """From `first` to `last` over `steps` optimizer steps, then `last`.

    Raises ValueError for ratios outside [0, 1) or fewer than one step.
    """

    first: float
    last: float
    steps: int

    def __post_init__(self) -> None:
        if not (0 <= self.first < 1 and 0 <= self.last < 1) or self.steps < 1:
            raise ValueError(
                "A linear mask ratio needs first and last in [0, 1) and steps of at least 1, "
                f"got first={self.first}, last={self.last} and steps={self.steps}."
            )

    @property
    def largest(self) -> float:
        """The largest ratio that it may draw."""
        return max(self.first, self.last)

    def draw(self, step: int, num_images: int) -> float:
        """The ratio at an optimizer step (from 0)."""
        progress = min(1.0, step / self.steps)
        return self.first + progress * (self.last - self.first)
