"""How large a share of the patches a training step hides.

[0] Li et al., MAGE: MAsked Generative Encoder, 2023, https://arxiv.org/abs/2211.09117 (truncated-normal ratios)
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor


class MaskRatio(Protocol):
    """A law of mask ratios."""

    def draw(self, step: int, num_images: int) -> float | Tensor:
        """The ratio at an optimizer step (from 0): one number, or (B,)."""
        ...


@dataclass(frozen=True)
class Constant:
    """The same share at every step. Raises ValueError unless 0 <= ratio < 1."""

    ratio: float

    def __post_init__(self) -> None:
        if isinstance(self.ratio, bool) or not isinstance(self.ratio, int | float):
            raise ValueError(f"mask_ratio must be a number, or a law such as /mask@...: truncated_normal, got {self.ratio!r}.")
        if not 0 <= self.ratio < 1:
            raise ValueError(f"mask_ratio must lie in [0, 1), got {self.ratio}.")

    def draw(self, step: int, num_images: int) -> float:
        return self.ratio


@dataclass(frozen=True)
class TruncatedNormal:
    """A normal of `mean` and `std` truncated to [low, high], drawn anew at each step from torch's global stream [0].

    `per`: `batch` draws one ratio for all images (official), `image` one for each. Raises ValueError unless 0 <= low <= high <= 1 and std > 0.
    """

    low: float
    high: float
    mean: float
    std: float
    per: Literal["batch", "image"]

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1 or self.std <= 0:
            raise ValueError(f"A truncated normal needs 0 <= low <= high <= 1 and std > 0, got {self.low}, {self.high} and {self.std}.")
        if self.per not in ("batch", "image"):
            raise ValueError(f"Unknown per {self.per!r}. Choose batch or image.")

    def draw(self, step: int, num_images: int) -> float | Tensor:
        if self.per == "batch":
            return self.quantile(torch.rand((), dtype=torch.float64)).item()
        return self.quantile(torch.rand(num_images, dtype=torch.float64))

    def quantile(
        self,
        u: Tensor,  # in [0, 1]
    ) -> Tensor:
        """The ratio below which a share u of the draws lies, in float64."""
        u = u.double()
        below, above = (torch.special.ndtr(torch.tensor((end - self.mean) / self.std, dtype=torch.float64)) for end in (self.low, self.high))
        return (self.mean + self.std * torch.special.ndtri(below + u * (above - below))).clamp(self.low, self.high)


@dataclass(frozen=True)
class Linear:
    """From `first` to `last` over `steps` optimizer steps, then `last`. Raises ValueError for ratios outside [0, 1) and no steps."""

    first: float
    last: float
    steps: int

    def __post_init__(self) -> None:
        if not (0 <= self.first < 1 and 0 <= self.last < 1) or self.steps < 1:
            raise ValueError(f"A linear mask ratio needs both ends in [0, 1) and at least one step, got {self.first}, {self.last} and {self.steps}.")

    def draw(self, step: int, num_images: int) -> float:
        passed = min(1.0, step / self.steps)
        return self.first + passed * (self.last - self.first)
