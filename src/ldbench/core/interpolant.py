"""Interpolant: the path between noise and data, and the conversions between kinds of predictions.

[0] Albergo, Boffi and Vanden-Eijnden, Stochastic Interpolants, 2023, https://arxiv.org/abs/2303.08797
[1] Ma et al., SiT: Flow and Diffusion with Scalable Interpolant Transformers, 2024, https://arxiv.org/abs/2401.08740
[2] Salimans and Ho, Progressive Distillation, 2022, https://arxiv.org/abs/2202.00512 (the angular velocity, which they
call v)
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

Kind = Literal["velocity", "score", "noise", "data", "angular"]
KINDS = ("velocity", "score", "noise", "data", "angular")
BISECTIONS = 80  # steps of the search for a time


@dataclass(frozen=True)
class Coefficients:
    """x = alpha * data + sigma * noise at some times, with the time derivatives; each float64, shaped as the times."""

    alpha: Tensor
    sigma: Tensor
    alpha_dot: Tensor
    sigma_dot: Tensor

    @property
    def log_snr(self) -> Tensor:
        """log(alpha / sigma), half the logarithm of the signal-to-noise ratio."""
        return self.alpha.log() - self.sigma.log()

    @property
    def diffusion(self) -> Tensor:
        """Half the squared diffusion coefficient of the forward process: alpha' / alpha * sigma^2 - sigma * sigma'."""
        return self.alpha_dot / self.alpha * self.sigma.square() - self.sigma * self.sigma_dot


# (p, q) of each kind: a prediction is p * data + q * noise
PREDICTION_COEFFICIENTS: dict[str, Callable[[Coefficients], tuple[Tensor, Tensor]]] = {
    "velocity": lambda c: (c.alpha_dot, c.sigma_dot),
    "score": lambda c: (torch.zeros_like(c.alpha), -1 / c.sigma),
    "noise": lambda c: (torch.zeros_like(c.alpha), torch.ones_like(c.alpha)),
    "data": lambda c: (torch.ones_like(c.alpha), torch.zeros_like(c.alpha)),
    "angular": lambda c: (-c.sigma, c.alpha),
}


def conversion_coefficients(c: Coefficients, source: Kind, target: Kind) -> tuple[Tensor, Tensor]:
    """(u, w), so that the target is u * x + w * source for any data and noise; not finite where the source does not
    determine it.

    Source, target and x are linear in data and noise: two of the three determine the third.
    """
    (p, q), (p_target, q_target) = PREDICTION_COEFFICIENTS[source](c), PREDICTION_COEFFICIENTS[target](c)
    determinant = c.alpha * q - c.sigma * p
    return (p_target * q - q_target * p) / determinant, (q_target * c.alpha - p_target * c.sigma) / determinant


def expand_like(
    values: Tensor,  # (B,)
    like: Tensor,  # (B, ...)
) -> Tensor:  # (B, 1, ...), on the device and in the precision of `like`
    """One number for each image, shaped to broadcast over a tensor with a row for each image."""
    return values.to(like.dtype).to(like.device, non_blocking=True).reshape(-1, *(1,) * (like.ndim - 1))


def convert(
    value: Tensor,  # (B, N, C)
    x: Tensor,  # (B, N, C)
    c: Coefficients,  # (B,) of the times
    *,
    source: Kind,
    target: Kind,
) -> Tensor:  # (B, N, C)
    """A prediction at x and these times, converted to another kind."""
    if source == target:
        return value
    u, w = conversion_coefficients(c, source, target)
    return expand_like(u, x) * x + expand_like(w, x) * value


class Interpolant(ABC):
    """x_t = alpha(t) * data + sigma(t) * noise; t = 0 is noise, t = 1 is data (eq. 1 of [1], whose time is reversed).

    Times are (B,) float64 on the CPU: coefficients are exact, the same on every device, and need no synchronization.
    """

    revision: ClassVar[int] = 1
    variance_preserving: ClassVar[bool]  # alpha^2 + sigma^2 = 1
    num_times: int | None = None  # the number of discrete times, noise last (DDPM); None: time is continuous

    @abstractmethod
    def coefficients(self, t: Tensor) -> Coefficients:
        """All coefficients at times (B,) float64 on the CPU."""

    @abstractmethod
    def interval(self, prediction: Kind, margin: float) -> tuple[float, float]:
        """The first and the last time between which a prediction of this kind has a finite velocity,
        `margin` from singular times.
        """

    def at(
        self,
        t: Tensor,  # (B,) on any device, in any precision
    ) -> Coefficients:
        """All coefficients at these times."""
        return self.coefficients(t.detach().to("cpu", torch.float64))

    def mix(
        self,
        noise: Tensor,  # (B, N, C)
        data: Tensor,  # (B, N, C)
        t: Tensor,  # (B,)
    ) -> Tensor:  # (B, N, C)
        """x_t."""
        c = self.at(t)
        return expand_like(c.alpha, data) * data + expand_like(c.sigma, data) * noise

    def between(
        self,
        noise: Tensor,  # (B, N, C)
        data: Tensor,  # (B, N, C)
        t: Tensor,  # (B,)
    ) -> tuple[Tensor, Tensor]:  # (B, N, C) both
        """x_t, and its velocity towards the data."""
        return self.mix(noise, data, t), self.perfect_prediction("velocity", noise, data, t)

    def perfect_prediction(
        self,
        kind: Kind,
        noise: Tensor,  # (B, N, C)
        data: Tensor,  # (B, N, C)
        t: Tensor,  # (B,)
    ) -> Tensor:  # (B, N, C)
        """The exact prediction of this kind for pairs of data and noise."""
        p, q = PREDICTION_COEFFICIENTS[kind](self.at(t))
        return expand_like(p, data) * data + expand_like(q, data) * noise

    def time_at(
        self,
        log_snr: Tensor,  # (B,) log(alpha / sigma)
    ) -> Tensor:  # (B,) float64
        """The time with this signal-to-noise ratio, which increases from noise to data; found by bisection."""
        target = log_snr.detach().to("cpu", torch.float64)
        low, high = torch.zeros_like(target), torch.ones_like(target)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            below = self.at(middle).log_snr < target
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2
