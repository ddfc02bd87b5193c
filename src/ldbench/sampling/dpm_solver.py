"""DPM-Solver++(2M): solves the linear part of the probability-flow ODE exactly and extrapolates the expected data.

[0] Lu et al., DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models, 2022,
    https://arxiv.org/abs/2211.01095 (algorithm 2)
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
from ldbench.core.time_shift import Shift, resolve_shift
from ldbench.sampling.grid import DTYPES, batch_time, time_grid, validate_grid, validate_state
from ldbench.sampling.sampler import StatesSampler


def even_in_time(field: Field, num_steps: int, shift: float, margin: float) -> list[float]:
    """Equal steps in time, up to the data."""
    first, _ = field.interval(margin)
    return time_grid(first, 1.0, num_steps=num_steps, shift=shift).tolist()


def even_in_log_snr(field: Field, num_steps: int, shift: float, margin: float) -> list[float]:
    """Equal steps in log(alpha / sigma) between the margins, with one step to each end that these do not reach."""
    first, last = field.interval(margin)
    low, high = max(first, margin), min(last, 1 - margin)
    before = [first] if first < low else []
    ends = field.interpolant.at(torch.tensor([low, high], dtype=torch.float64)).log_snr.tolist()
    even = time_grid(*ends, num_steps=num_steps - len(before) - 1, shift=shift)
    return [*before, low, *field.interpolant.time_at(even[1:-1]).tolist(), high, 1.0]


SPACINGS = {"time": even_in_time, "log_snr": even_in_log_snr}


class DPMSolver(StatesSampler):
    """`num_steps` steps of second order in log(alpha / sigma) on any interpolant, one network call each.

    The first step is of first order, and so is the last, which ends in the expected data: the network is not called at
    t = 1, and `margin` is the distance to other times at which the field is not finite. `spacing`: equal steps in
    `time`, or in `log_snr` [0], whose last step starts at 1 - margin. `shift` moves the times, see `time_grid`. `dtype`
    is that of the state; the network sees float32. Raises ValueError for unknown options and for numbers out of range.
    """

    revision: ClassVar[int] = 1
    stochastic: ClassVar[bool] = False

    def __init__(
        self,
        *,
        num_steps: int,
        spacing: Literal["time", "log_snr"],
        shift: Shift,
        margin: float,
        dtype: Literal["float32", "float64"],
    ):
        validate_grid(num_steps, shift)
        validate_state(dtype, margin)
        if spacing not in SPACINGS:
            raise ValueError(f"Unknown spacing {spacing!r} of DPM-Solver. Choose {' or '.join(SPACINGS)}.")
        if spacing == "log_snr" and num_steps < 3:
            raise ValueError(
                f"spacing=log_snr needs one step to each end: at least 3 in total, got num_steps={num_steps}."
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
        """Yields the noise and the state after each step."""
        times = self.spacing(field, self.num_steps, resolve_shift(self.shift, noise[0].numel()), self.margin)
        previous: tuple[Tensor, float] | None = None  # the expected data of the previous step, and its length
        x = noise.to(self.dtype)
        yield x
        for start, end in pairwise(times):
            data = field(x, batch_time(start, x), y).data
            c = field.interpolant.at(torch.tensor([start, end], dtype=torch.float64))
            length = float(c.log_snr[1] - c.log_snr[0])
            x = step(
                x,
                extrapolate(data, previous, length),
                sigma_ratio=c.sigma[1] / c.sigma[0],
                alpha=c.alpha[1],
                length=length,
            )
            previous = (data, length)
            yield x


def step(x: Tensor, data: Tensor, *, sigma_ratio: Tensor, alpha: Tensor, length: float) -> Tensor:
    """The exact solution for constant data: eq. 9 of [0]."""
    return expand_like(sigma_ratio.reshape(1), x) * x - expand_like(alpha.reshape(1), x) * math.expm1(-length) * data


def extrapolate(data: Tensor, previous: tuple[Tensor, float] | None, length: float) -> Tensor:
    """The data at the middle of a step, from its start and the previous step; the former if a length is infinite."""
    if previous is None or math.isinf(length) or math.isinf(previous[1]):
        return data
    previous_data, previous_length = previous
    weight = 0.5 * length / previous_length
    return (1 + weight) * data - weight * previous_data
