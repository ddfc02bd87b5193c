"""The interpolants: Linear, GVP and VP with continuous time, Discrete with the discrete times of DDPM.

[0] Ma et al., SiT, 2024, https://arxiv.org/abs/2401.08740 (table 1)
[1] Ho, Jain and Abbeel, Denoising Diffusion Probabilistic Models, 2020, https://arxiv.org/abs/2006.11239 (linear betas)
[2] Nichol and Dhariwal, Improved Denoising Diffusion Probabilistic Models, 2021, https://arxiv.org/abs/2102.09672
(cosine betas: eq. 17)
[3] Song et al., Score-Based Generative Modeling through SDEs, 2021, https://arxiv.org/abs/2011.13456 (VP)
"""

import math
from typing import ClassVar

import torch
from torch import Tensor

from ldbench.core.discrete_diffusion import time_of_index
from ldbench.core.interpolant import Coefficients, Interpolant, Kind


class Linear(Interpolant):
    """alpha = t, sigma = 1 - t: straight paths, as in rectified flow, LightningDiT and MAETok."""

    variance_preserving: ClassVar[bool] = False

    def coefficients(self, t: Tensor) -> Coefficients:
        """All coefficients at times (B,)."""
        one = torch.ones_like(t)
        return Coefficients(alpha=t, sigma=1 - t, alpha_dot=one, sigma_dot=-one)

    def interval(self, prediction: Kind, margin: float) -> tuple[float, float]:
        """The first and the last time between which the velocity is finite."""
        return (0.0, 1.0) if prediction == "velocity" else (margin, 1.0 - margin)


class GVP(Interpolant):
    """alpha = sin(pi t / 2), sigma = cos(pi t / 2): generalized variance-preserving [0], MAETok's `cosine`."""

    variance_preserving: ClassVar[bool] = True

    def coefficients(self, t: Tensor) -> Coefficients:
        """All coefficients at times (B,)."""
        alpha = (math.pi / 2 * t).sin()
        sigma = (math.pi / 2 * (1 - t)).sin()  # cos(pi t / 2), exactly 0 at t = 1
        return Coefficients(alpha, sigma, alpha_dot=math.pi / 2 * sigma, sigma_dot=-math.pi / 2 * alpha)

    def interval(self, prediction: Kind, margin: float) -> tuple[float, float]:
        """The first and the last time between which the velocity is finite."""
        return (0.0, 1.0) if prediction in ("velocity", "angular") else (margin, 1.0 - margin)


def from_log_alpha(
    log_alpha: Tensor,  # (B,)
    rate: Tensor,  # (B,) its derivative by time
) -> Coefficients:
    """The coefficients with alpha^2 + sigma^2 = 1."""
    alpha, sigma = log_alpha.exp(), (-torch.expm1(2 * log_alpha)).sqrt()
    return Coefficients(alpha, sigma, alpha_dot=alpha * rate, sigma_dot=-alpha.square() * rate / sigma)


class VP(Interpolant):
    """The variance-preserving path of [3], with noise rates from `beta_min` at the data to `beta_max` at the noise.

    log(alpha) = -(beta_max - beta_min) (1 - t)^2 / 4 - beta_min (1 - t) / 2; alpha(0) is above zero: x_0 holds some
    data.
    Raises ValueError unless 0 < beta_min <= beta_max.
    """

    variance_preserving: ClassVar[bool] = True

    def __init__(self, *, beta_min: float, beta_max: float):
        if not 0 < beta_min <= beta_max:
            raise ValueError(
                f"VP needs 0 < beta_min <= beta_max, got {beta_min} and {beta_max}. The usual values are 0.1 and 20."
            )
        self.beta_min = beta_min
        self.beta_max = beta_max

    def coefficients(self, t: Tensor) -> Coefficients:
        """All coefficients at times (B,)."""
        reversed_t, slope = 1 - t, self.beta_max - self.beta_min
        log_alpha = -0.25 * slope * reversed_t.square() - 0.5 * self.beta_min * reversed_t
        return from_log_alpha(log_alpha, rate=0.5 * (reversed_t * slope + self.beta_min))  # half of beta(t)

    def interval(self, prediction: Kind, margin: float) -> tuple[float, float]:
        """The first and the last time between which the velocity is finite."""
        return 0.0, 1.0 - margin  # sigma' is infinite at the data


def linear_betas(num_times: int) -> Tensor:  # (num_times,) float64
    """From 1e-4 to 0.02 for a thousand times [1]; scaled for other numbers of times,
    so that the total noise is the same.
    """
    return torch.linspace(0.1 / num_times, 20 / num_times, num_times, dtype=torch.float64)


def cosine_betas(num_times: int) -> Tensor:  # (num_times,) float64
    """The betas whose cumulative product of alphas is a squared cosine, none above 0.999 [2]."""
    curve = ((torch.linspace(0, 1, num_times + 1, dtype=torch.float64) + 0.008) / 1.008 * math.pi / 2).cos().square()
    return (1 - curve[1:] / curve[:-1]).clamp(max=0.999)


BETAS = {"linear": linear_betas, "cosine": cosine_betas}


class Discrete(Interpolant):
    """The forward process of DDPM: index i = 0 ... num_times - 1 from almost clean to noise, at t = 1 - (i + 1) /
    num_times.

    log(alpha) is linear between these times, and t = 1 is the data itself. The tables are float64.
    Raises ValueError for an unknown schedule, or for fewer than 21 times, whose linear betas would reach 1.
    """

    variance_preserving: ClassVar[bool] = True

    def __init__(self, *, schedule: str, num_times: int):
        if schedule not in BETAS:
            raise ValueError(f"Unknown schedule of betas {schedule!r}. Choose {' or '.join(BETAS)}.")
        if num_times < 21:
            raise ValueError(
                f"Discrete diffusion needs num_times of at least 21, got {num_times}. The usual number is 1000; "
                "respacing uses fewer of them for sampling."
            )
        self.num_times = num_times
        self.betas = BETAS[schedule](num_times)  # (num_times,)
        # of the indices -1, which is clean data, to num_times - 1
        self.log_alphas = torch.cat(
            [torch.zeros(1, dtype=torch.float64), 0.5 * torch.cumsum(torch.log1p(-self.betas), dim=0)]
        )

    def coefficients(self, t: Tensor) -> Coefficients:
        """All coefficients at times (B,)."""
        position = len(self.betas) * (1 - t)  # index + 1
        # the table's entry below; at a time of the table, the slope towards the data
        knot = (position - 1e-6).floor().long().clamp(0, len(self.betas) - 1)
        low, high = self.log_alphas[knot], self.log_alphas[knot + 1]
        return from_log_alpha(low + (position - knot) * (high - low), rate=len(self.betas) * (low - high))

    def interval(self, prediction: Kind, margin: float) -> tuple[float, float]:
        """The first and the last time between which the velocity is finite."""
        return 0.0, time_of_index(0, len(self.betas))
