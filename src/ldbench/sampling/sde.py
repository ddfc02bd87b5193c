"""Samplers along a reverse SDE: the probability-flow ODE plus noise and score of a given diffusion coefficient.

[0] Ma et al., SiT, 2024, https://arxiv.org/abs/2401.08740 (eq. 6 and 7; coefficients: section 2.4 and table 1)
[1] Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, 2022,
    https://arxiv.org/abs/2206.00364 (stochastic Heun)
[2] Chen et al., Masked Autoencoders Are Effective Tokenizers (MAETok), 2025, https://arxiv.org/abs/2502.03444
"""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ldbench.core.field import Field, Prediction
from ldbench.core.interfaces import Increments
from ldbench.core.interpolant import Coefficients, expand_like
from ldbench.core.time_shift import Shift, resolve_shift
from ldbench.sampling.grid import DTYPES, batch_time, time_grid, validate_grid, validate_last_step, validate_state
from ldbench.sampling.noise import increment
from ldbench.sampling.sampler import StatesSampler

LAST_STEPS = ("mean", "euler", "tweedie", "none")


def divide(w: Tensor, sigma: Tensor) -> Tensor:
    """w / sigma, and 0 where w is 0."""
    return torch.where(w == 0, torch.zeros_like(w), w / sigma)


# w / sigma at t for each diffusion coefficient w, scaled by `norm`
DIFFUSION_OVER_SIGMA: dict[str, Callable[[Coefficients, Tensor, float], Tensor]] = {
    "constant": lambda c, t, norm: norm / c.sigma,
    # half the squared diffusion of the forward process
    "sbdm": lambda c, t, norm: norm * (c.alpha_dot / c.alpha * c.sigma - c.sigma_dot),
    "sigma": lambda c, t, norm: torch.full_like(t, norm),
    "linear": lambda c, t, norm: divide(norm * (1 - t), c.sigma),
    "decreasing": lambda c, t, norm: divide(0.25 * (norm * (math.pi * t).cos() + 1).square(), c.sigma),
    "increasing_decreasing": lambda c, t, norm: divide(norm * (math.pi * (1 - t)).sin().square(), c.sigma),
    # w = 2 t in MAETok's time, where t = 1 is noise; its coefficient is twice ours
    "maetok": lambda c, t, norm: divide(norm * (1 - t), c.sigma),
}


Drift = Callable[[Tensor, float], Tensor]


def euler_maruyama(drift: Drift, x: Tensor, noise: Tensor, start: float, end: float) -> Tensor:
    """A step with the drift at its start: one network call."""
    return x + (end - start) * drift(x, start) + noise


def stochastic_heun(drift: Drift, x: Tensor, noise: Tensor, start: float, end: float) -> Tensor:
    """A step that adds its noise first and then uses the mean drift of both ends: two network calls [1]."""
    noisy = x + noise
    first = drift(noisy, start)
    return noisy + (end - start) * 0.5 * (first + drift(noisy + (end - start) * first, end))


RULES = {"euler_maruyama": euler_maruyama, "heun": stochastic_heun}


class ReverseSDE(StatesSampler):
    """`num_steps` noisy steps of dx = (velocity + w score) dt + sqrt(2 w) dW [0], and a last one without noise.

    `rule`: euler_maruyama, one network call per step, or heun, two; the last step takes one.
    `diffusion` is the coefficient w(t), times `norm` (in `decreasing`: 0.25 (norm cos(pi t) + 1)^2). The noisy steps
    end at 1 - last_step_size, and `last_step` continues from there to the data: `mean` with the drift, `euler` with the
    velocity, `tweedie` to the expected data. With `none` all steps are noisy, and last_step_size must be 0. `margin` is
    the distance to times at which the velocity or w is not finite; `shift` moves the times. Velocity and score always
    come from the same call. `dtype` is that of the state; the network sees float32.
    Raises ValueError for unknown options and for numbers out of range.
    """

    revision: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True

    def __init__(
        self,
        *,
        rule: str,
        num_steps: int,
        diffusion: str,
        norm: float,
        last_step: Literal["mean", "euler", "tweedie", "none"],
        last_step_size: float,
        shift: Shift,
        margin: float,
        dtype: Literal["float32", "float64"],
    ):
        validate_grid(num_steps, shift)
        validate_state(dtype, margin)
        validate_last_step(last_step, LAST_STEPS)
        if rule not in RULES:
            raise ValueError(f"Unknown rule {rule!r} of an SDE. Choose {' or '.join(RULES)}.")
        if diffusion not in DIFFUSION_OVER_SIGMA:
            raise ValueError(
                f"Unknown diffusion {diffusion!r} of an SDE. Choose one of {', '.join(DIFFUSION_OVER_SIGMA)}."
            )
        if norm < 0:
            raise ValueError(f"The norm of a diffusion must not be negative, got {norm}. norm=0 is the ODE.")
        if (last_step == "none") != (last_step_size == 0) or not 0 <= last_step_size < 1:
            raise ValueError(
                f"last_step={last_step} and last_step_size={last_step_size} do not go together. Choose last_step=none "
                "with last_step_size=0, or mean, euler or tweedie with a size between 0 and 1, such as 0.04."
            )
        self.rule = RULES[rule]
        self.num_steps = num_steps
        self.diffusion = diffusion
        self.norm = norm
        self.last_step = last_step
        self.last_step_size = last_step_size
        self.shift = shift
        self.margin = margin
        self.dtype = DTYPES[dtype]

    @torch.no_grad()
    def states(
        self,
        field: Field,
        noise: Tensor,  # (B, N, C)
        y: Tensor,  # (B,)
        *,
        stream: Increments | None = None,
        increments: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """Yields the noise, the state at each further time of the grid, and the state after the last step."""

        def drift(x: Tensor, time: float) -> Tensor:
            return self.drift(field(x, batch_time(time, x), y))

        first, last = self.interval(field)
        x = noise.to(self.dtype)
        yield x
        shift = resolve_shift(self.shift, noise[0].numel())
        grid = time_grid(first, last, num_steps=self.num_steps, shift=shift).tolist()
        for i, (start, end) in enumerate(pairwise(grid)):
            normal = increment(i, x, stream=stream, increments=increments)
            x = self.rule(drift, x, self.scale_noise(field, start, end, normal), start, end)
            yield x
        if self.last_step != "none":
            yield self.finish(field, x, y, last)

    def finish(self, field: Field, x: Tensor, y: Tensor, last: float) -> Tensor:
        """The state after the last step, from the end of the noisy steps."""
        predicted = field(x, batch_time(last, x), y)
        if self.last_step == "tweedie":
            return predicted.data
        return x + (1 - last) * (self.drift(predicted) if self.last_step == "mean" else predicted.velocity)

    def drift(self, predicted: Prediction) -> Tensor:  # (B, N, C)
        """velocity + w * score, with the score as -noise / sigma, so that it is finite wherever w / sigma is."""
        weight = expand_like(self.diffusion_over_sigma(predicted.coefficients, predicted.t), predicted.x)
        return predicted.velocity - weight * predicted.noise

    def scale_noise(self, field: Field, start: float, end: float, normal: Tensor) -> Tensor:  # (B, N, C)
        """The noise of a step: sqrt(2 w dt) times standard normal numbers."""
        t = batch_time(start, normal)
        c = field.interpolant.at(t)
        w = self.diffusion_over_sigma(c, t) * c.sigma
        return expand_like((2 * w * (end - start)).sqrt(), normal) * normal

    def diffusion_over_sigma(self, c: Coefficients, t: Tensor) -> Tensor:  # (B,) float64
        """w / sigma at times t with coefficients c."""
        return DIFFUSION_OVER_SIGMA[self.diffusion](c, t, self.norm)

    def interval(self, field: Field) -> tuple[float, float]:
        """The first and the last time of the noisy steps: velocity and diffusion are finite there."""
        first, last = field.interval(self.margin)
        last = min(last, 1 - self.last_step_size)
        ends = torch.tensor([first, last], dtype=torch.float64)
        finite = torch.isfinite(self.diffusion_over_sigma(field.interpolant.at(ends), ends))
        return (first if finite[0] else max(first, self.margin)), (last if finite[1] else min(last, 1 - self.margin))
