"""Along the probability-flow ODE: fixed steps by a Runge-Kutta rule, or steps as long as an error allows.

[0] Song et al., Score-Based Generative Modeling through Stochastic Differential Equations, 2021, https://arxiv.org/abs/2011.13456 (eq. 13)
[1] Dormand and Prince, A Family of Embedded Runge-Kutta Formulae, 1980, https://doi.org/10.1016/0771-050X(80)90013-3
[2] Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, 2022, https://arxiv.org/abs/2206.00364 (Heun)
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
from ldbench.sampling.grid import DTYPES, at, check_grid, check_last_step, check_state, time_grid
from ldbench.sampling.runge_kutta import RULES, rule_named
from ldbench.sampling.sampler import StatesSampler

LAST_STEPS = ("tweedie", "none")
LAST_STEPS_OF_GRIDS = (*LAST_STEPS, "euler")


class FixedGrid(StatesSampler):
    """`num_steps` steps of a Runge-Kutta rule from noise to data; each takes as many network calls as the rule has stages.

    `shift` moves the times, see `time_grid`. Where a field's velocity is not finite at an end of [0, 1], `margin` is kept from it.
    `last_step`: `tweedie` goes the rest of that way, to the data that one more call expects; `none` stays there; `euler` lets the grid reach
    t = 1 in any case and makes its last step by Euler's rule, which asks nothing there ([2]; MAETok's Heun).
    `dtype` is that of the state; the network sees float32. Raises ValueError for unknown words and for numbers out of range.
    """

    revision: ClassVar[int] = 1
    stochastic: ClassVar[bool] = False

    def __init__(
        self,
        *,
        rule: str,
        num_steps: int,
        shift: float,
        margin: float,
        last_step: Literal["tweedie", "none", "euler"],
        dtype: Literal["float32", "float64"],
    ):
        check_grid(num_steps, shift)
        check_state(dtype, margin)
        check_last_step(last_step, LAST_STEPS_OF_GRIDS)
        self.rule = rule_named(rule)
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
        """The state at each time of the grid, the first being the noise, and after the last step."""

        def velocity(x: Tensor, time: float) -> Tensor:
            return field(x, at(time, x), y).velocity

        first, last = field.interval(self.margin)
        last = 1.0 if self.last_step == "euler" else last
        rules = [self.rule] * self.num_steps
        if self.last_step == "euler":
            rules[-1] = RULES["euler"]
        x = noise.to(self.dtype)
        yield x
        times = time_grid(first, last, num_steps=self.num_steps, shift=self.shift).tolist()
        for rule, (start, end) in zip(rules, pairwise(times), strict=True):
            x = rule.step(velocity, x, start, end)
            yield x
        if last < 1 and self.last_step == "tweedie":
            yield field(x, at(last, x), y).data


class Dopri5(StatesSampler):
    """Steps as long as the error estimate of Dormand and Prince [1] stays within atol + rtol * |x|, by torchdiffeq.

    The error is the root mean square over the whole batch, as in SiT and LightningDiT: samples depend a little on their batch. The last step
    ends at the end (theirs goes on and is read before its own end, which asks the network beyond the data).
    `margin`, `last_step` and `dtype` as in `FixedGrid`. Raises ValueError for tolerances not above zero.
    """

    revision: ClassVar[int] = 1
    stochastic: ClassVar[bool] = False

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
        check_state(dtype, margin)
        check_last_step(last_step, LAST_STEPS)
        self.atol = atol
        self.rtol = rtol
        self.margin = margin
        self.last_step = last_step
        self.dtype = DTYPES[dtype]

    def check(self, interpolant: Interpolant) -> None:
        """Every interpolant has a probability-flow ODE. Raises ValueError where time is counted: the error estimate stumbles over its kinks."""
        if interpolant.num_times is not None:
            raise ValueError(
                f"Dopri5 needs a smooth interpolant, but this generator counts {interpolant.num_times} times. "
                "Choose sampler=ancestral, ddim, dpm_solver or heun."
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
            yield field(states[-1], at(last, noise), y).data

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
            return field(x, at(float(time), x), y).velocity

        x, times = noise.to(self.dtype), times.to(noise.device)
        options = {"step_t": times[-1:]}  # a step ends there: beyond it there may be no velocity
        return odeint(velocity, x, times, rtol=self.rtol, atol=self.atol, method="dopri5", options=options)
