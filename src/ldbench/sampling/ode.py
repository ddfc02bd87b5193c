"""Samplers along the probability-flow ODE: fixed steps of a Runge-Kutta rule, or adaptive steps.

[0] Song et al., Score-Based Generative Modeling through Stochastic Differential Equations, 2021,
    https://arxiv.org/abs/2011.13456 (eq. 13)
[1] Dormand and Prince, A Family of Embedded Runge-Kutta Formulae, 1980, https://doi.org/10.1016/0771-050X(80)90013-3
[2] Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, 2022,
    https://arxiv.org/abs/2206.00364 (Heun)
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torchdiffeq import odeint

from ldbench.core.field import Field
from ldbench.core.interfaces import Increments
from ldbench.core.interpolant import Interpolant
from ldbench.core.time_shift import Shift, resolve_shift
from ldbench.sampling.grid import DTYPES, batch_time, time_grid, validate_grid, validate_last_step, validate_state
from ldbench.sampling.runge_kutta import RULES, get_rule
from ldbench.sampling.sampler import StatesSampler

LAST_STEPS = ("tweedie", "none")
LAST_STEPS_OF_GRIDS = (*LAST_STEPS, "euler")


class FixedGrid(StatesSampler):
    """`num_steps` steps of a Runge-Kutta rule from noise to data, each with one network call per stage.

    `shift` moves the times, see `time_grid`. If the velocity is not finite at an end of [0, 1], the grid keeps `margin`
    from it. `last_step`: `tweedie` then ends in the expected data of one more call; `none` ends there; `euler` lets the
    grid reach t = 1 in any case and takes its last step by Euler's rule, which makes no call at t = 1 ([2]; MAETok's
    Heun). `dtype` is that of the state; the network sees float32.
    Raises ValueError for unknown options and for numbers out of range.
    """

    revision: ClassVar[int] = 1
    stochastic: ClassVar[bool] = False

    def __init__(
        self,
        *,
        rule: str,
        num_steps: int,
        shift: Shift,
        margin: float,
        last_step: Literal["tweedie", "none", "euler"],
        dtype: Literal["float32", "float64"],
    ):
        validate_grid(num_steps, shift)
        validate_state(dtype, margin)
        validate_last_step(last_step, LAST_STEPS_OF_GRIDS)
        self.rule = get_rule(rule)
        self.num_steps = num_steps
        self.shift = shift
        self.margin = margin
        self.last_step = last_step
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

        def velocity(x: Tensor, time: float) -> Tensor:
            return field(x, batch_time(time, x), y).velocity

        first, last = field.interval(self.margin)
        last = 1.0 if self.last_step == "euler" else last
        rules = [self.rule] * self.num_steps
        if self.last_step == "euler":
            rules[-1] = RULES["euler"]
        x = noise.to(self.dtype)
        yield x
        shift = resolve_shift(self.shift, noise[0].numel())
        times = time_grid(first, last, num_steps=self.num_steps, shift=shift).tolist()
        for rule, (start, end) in zip(rules, pairwise(times), strict=True):
            x = rule.step(velocity, x, start, end)
            yield x
        if last < 1 and self.last_step == "tweedie":
            yield field(x, batch_time(last, x), y).data


class Dopri5(StatesSampler):
    """Adaptive steps by torchdiffeq: the error estimate of Dormand and Prince [1] stays within atol + rtol * |x|.

    The error is the root mean square over the whole batch, as in SiT and LightningDiT: samples depend slightly on their
    batch. The last step ends at the last time (theirs continues beyond it and interpolates, which calls the network at
    times beyond the data). `margin`, `last_step` and `dtype` as in `FixedGrid`. Raises ValueError for tolerances that
    are not above zero.
    """

    revision: ClassVar[int] = 1
    stochastic: ClassVar[bool] = False
    yields_each_step: ClassVar[bool] = False  # torchdiffeq keeps its steps to itself

    def __init__(
        self,
        *,
        atol: float,
        rtol: float,
        margin: float,
        last_step: Literal["tweedie", "none"],
        dtype: Literal["float32", "float64"],
    ):
        if not (atol > 0 and rtol > 0):
            raise ValueError(f"Dopri5 needs atol and rtol above zero, got {atol} and {rtol}.")
        validate_state(dtype, margin)
        validate_last_step(last_step, LAST_STEPS)
        self.atol = atol
        self.rtol = rtol
        self.margin = margin
        self.last_step = last_step
        self.dtype = DTYPES[dtype]

    def check(self, interpolant: Interpolant) -> None:
        """Raises ValueError for discrete time: the error estimate needs a smooth interpolant."""
        if interpolant.num_times is not None:
            raise ValueError(
                f"Dopri5 needs a smooth interpolant, but this generator has {interpolant.num_times} discrete "
                "timesteps. Choose sampler=ancestral, ddim, dpm_solver or heun."
            )

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
        """Yields the noise, the state at the end of the interval, and the expected data after a last step."""
        first, last = field.interval(self.margin)
        yield from (states := self.trajectory(field, noise, y, torch.tensor([first, last], dtype=torch.float64)))
        if last < 1 and self.last_step == "tweedie":
            yield field(states[-1], batch_time(last, noise), y).data

    @torch.no_grad()
    def trajectory(
        self,
        field: Field,
        noise: Tensor,  # (B, N, C)
        y: Tensor,  # (B,)
        times: Tensor,  # (S,) increasing
    ) -> Tensor:  # (S, B, N, C)
        """The state at each of these times, the first of which is the noise."""

        def velocity(time: Tensor, x: Tensor) -> Tensor:
            return field(x, batch_time(float(time), x), y).velocity

        x, times = noise.to(self.dtype), times.to(noise.device)
        options = {"step_t": times[-1:]}  # a step ends there: the velocity may not exist beyond it
        return odeint(velocity, x, times, rtol=self.rtol, atol=self.atol, method="dopri5", options=options)
