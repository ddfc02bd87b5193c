"""DPM-Solver++(2M): the linear part of the probability-flow ODE exactly, the expected data extrapolated from two calls.

[0] Lu et al., DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models, 2022, https://arxiv.org/abs/2211.01095 (algorithm 2)
"""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ldbench.core.field import Field
from ldbench.core.interfaces import Increments
from ldbench.core.interpolant import expand_like
from ldbench.sampling.grid import DTYPES, at, check_grid, check_state, time_grid
from ldbench.sampling.sampler import StatesSampler


def even_in_time(field: Field, num_steps: int, shift: float, margin: float) -> list[float]:
    """Times with even steps, up to the data."""
    first, _ = field.interval(margin)
    return time_grid(first, 1.0, num_steps=num_steps, shift=shift).tolist()


def even_in_log_snr(field: Field, num_steps: int, shift: float, margin: float) -> list[float]:
    """Times with even steps of log(alpha / sigma) between the margins, and a step to each end where this is not reached."""
    first, last = field.interval(margin)
    low, high = max(first, margin), min(last, 1 - margin)
    before = [first] if first < low else []
    ends = field.interpolant.at(torch.tensor([low, high], dtype=torch.float64)).log_snr.tolist()
    even = time_grid(*ends, num_steps=num_steps - len(before) - 1, shift=shift)
    return [*before, low, *field.interpolant.time_at(even[1:-1]).tolist(), high, 1.0]


SPACINGS = {"time": even_in_time, "log_snr": even_in_log_snr}


class DPMSolver(StatesSampler):
    """`num_steps` steps of second order in log(alpha / sigma) on any interpolant, one network call each.

    The first step is of first order, and so is the last, which ends in the expected data: nothing is asked at t = 1, and `margin` is kept from
    other times where the field is not finite. `spacing`: steps even in `time`, or in `log_snr` [0], which then ends the others at 1 - margin.
    `shift` moves them, see `time_grid`. `dtype` is that of the state; the network sees float32.
    Raises ValueError for unknown words and for numbers out of range.
    """

    revision: ClassVar[int] = 1
    stochastic: ClassVar[bool] = False

    def __init__(
        self,
        *,
        num_steps: int,
        spacing: Literal["time", "log_snr"],
        shift: float,
        margin: float,
        dtype: Literal["float32", "float64"],
    ):
        check_grid(num_steps, shift)
        check_state(dtype, margin)
        if spacing not in SPACINGS:
            raise ValueError(f"Unknown spacing {spacing!r} of DPM-Solver. Choose {' or '.join(SPACINGS)}.")
        if spacing == "log_snr" and num_steps < 3:
            raise ValueError(
                f"Even steps of log(alpha / sigma) need a step to each end: at least 3 in all, got {num_steps}."
            )
        self.spacing = SPACINGS[spacing]
        self.num_steps = num_steps
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
        """The noise, and the state after each step."""
        times = self.spacing(field, self.num_steps, self.shift, self.margin)
        before: tuple[Tensor, float] | None = None  # the data that the last step expected, and its length
        x = noise.to(self.dtype)
        yield x
        for start, end in pairwise(times):
            data = field(x, at(start, x), y).data
            c = field.interpolant.at(torch.tensor([start, end], dtype=torch.float64))
            length = float(c.log_snr[1] - c.log_snr[0])
            x = step(
                x,
                extrapolated(data, before, length),
                sigma_ratio=c.sigma[1] / c.sigma[0],
                alpha=c.alpha[1],
                length=length,
            )
            before = (data, length)
            yield x


def step(x: Tensor, data: Tensor, *, sigma_ratio: Tensor, alpha: Tensor, length: float) -> Tensor:
    """The exact solution for data that stay the same: eq. 9 of [0]."""
    return expand_like(sigma_ratio.reshape(1), x) * x - expand_like(alpha.reshape(1), x) * math.expm1(-length) * data


def extrapolated(data: Tensor, before: tuple[Tensor, float] | None, length: float) -> Tensor:
    """The data at the middle of a step, from those at its beginning and one step before; the former alone where a length is infinite."""
    if before is None or math.isinf(length) or math.isinf(before[1]):
        return data
    earlier, earlier_length = before
    weight = 0.5 * length / earlier_length
    return (1 + weight) * data - weight * earlier
