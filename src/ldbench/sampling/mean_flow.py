"""The sampler of networks that learn average velocities: few large steps, each with one network call.

[0] Geng et al., Mean Flows for One-step Generative Modeling, 2025, https://arxiv.org/abs/2505.13447
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ldbench.core.field import Field
from ldbench.core.interfaces import Increments
from ldbench.core.time_shift import Shift, resolve_shift
from ldbench.sampling.grid import DTYPES, batch_time, time_grid, validate_grid
from ldbench.sampling.sampler import StatesSampler


class MeanFlowSampler(StatesSampler):
    """`num_steps` steps from noise to data, each by the average velocity over it (section 4.1 of [0]).

    `shift` moves the times, see `core.time_shift`; `dtype` is that of the state, the network sees float32. Raises
    ValueError for numbers out of range and unknown options.
    """

    revision: ClassVar[int] = 1
    stochastic: ClassVar[bool] = False

    def __init__(self, *, num_steps: int, shift: Shift, dtype: Literal["float32", "float64"]):
        validate_grid(num_steps, shift)
        if dtype not in DTYPES:
            raise ValueError(f"Unknown dtype {dtype!r} of a sampler's state. Choose {' or '.join(DTYPES)}.")
        self.num_steps = num_steps
        self.shift = shift
        self.dtype = DTYPES[dtype]

    def check_field(self, field: Field) -> None:
        """Raises ValueError for a field without average velocities."""
        if field.average is None:
            raise ValueError(
                "sampler=mean_flow needs a network that learns average velocities, and this field has none. Choose "
                "sampler=euler or heun; or train with objective=mean_flow, and set guidance=none: its guidance is "
                "trained (objective.guidance_scale)."
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
        """Yields the noise and the state after each step."""
        self.check_field(field)
        x = noise.to(self.dtype)
        yield x
        shift = resolve_shift(self.shift, noise[0].numel())
        for start, end in pairwise(time_grid(0.0, 1.0, num_steps=self.num_steps, shift=shift).tolist()):
            x = x + (end - start) * field.average_velocity(x, batch_time(start, x), batch_time(end, x), y)
            yield x
