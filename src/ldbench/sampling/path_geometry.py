"""The geometry of the paths from noise to samples: how straight and how short they are, at no extra network call.

[0] Zhong et al., Diffusing in the Right Space: A Systematic Study of Latent Diffusability, 2026,
    https://arxiv.org/abs/2606.03578 (trajectory straightness and efficiency)
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ldbench.core.field import Field
from ldbench.core.interfaces import ChecksField, Increments, Sampler
from ldbench.core.interpolant import Interpolant
from ldbench.sampling.sampler import StatesSampler


@dataclass(frozen=True)
class PathGeometry:
    """Two numbers of each path, (B,) float64 on the CPU. Both are 1 for a straight line, and for a path that stays."""

    straightness: Tensor  # the mean cosine of successive steps [0], from -1 to 1
    efficiency: Tensor  # the distance of the ends over the length of the path [0], from 0 to 1


class GeometryRecorder:
    """A sampler with the samples of another one, which keeps the geometry of their paths: `last`, of the last call.

    Paths are those of normalized latents, with every state that the sampler goes through, the last one included.
    Steps of length 0 have no direction and are left out of the cosines. A stochastic sampler's path includes its noise.
    Raises ValueError for a sampler whose steps are not seen, and for one of a single step.
    """

    revision: ClassVar[int] = 1

    def __init__(self, sampler: Sampler):
        if not isinstance(sampler, StatesSampler) or not sampler.yields_each_step:
            raise ValueError(
                f"The paths of {type(sampler).__name__} cannot be measured: it does not show the state after each of "
                "its steps. Choose a sampler with a fixed number of steps, such as sampler=euler, or "
                "job.path_geometry=false."
            )
        num_steps = getattr(sampler, "num_steps", 2)
        if num_steps < 2:
            raise ValueError(too_few_steps(num_steps))
        self.sampler = sampler
        self.stochastic = sampler.stochastic
        self.last: PathGeometry | None = None

    def check(self, interpolant: Interpolant) -> None:
        """Raises ValueError for an interpolant that the sampler does not support."""
        self.sampler.check(interpolant)

    def check_field(self, field: Field) -> None:
        """Raises ValueError for a field that the sampler cannot sample."""
        if isinstance(self.sampler, ChecksField):
            self.sampler.check_field(field)

    def __call__(
        self,
        field: Field,
        noise: Tensor,  # (B, N, C)
        y: Tensor,  # (B,)
        *,
        stream: Increments | None = None,
        increments: Tensor | None = None,  # (steps, B, N, C)
    ) -> Tensor:  # (B, N, C) float32
        """The samples. Raises ValueError for a path of a single step, and where the sampler does."""
        self.check(field.interpolant)
        states = self.sampler.states(field, noise, y, stream=stream, increments=increments)
        last, self.last = follow(states)
        return last.float()


def follow(
    states: Iterable[Tensor],  # (B, ...) each, from the noise on
) -> tuple[Tensor, PathGeometry]:
    """The last state, and the geometry of the paths through all of them. Raises ValueError for fewer than two steps."""
    states = iter(states)
    first = last = next(states)
    length = cosines = pairs = torch.zeros(len(first), dtype=torch.float64, device=first.device)
    before, before_length, num_steps = None, length, 0
    for state in states:
        step = (state.double() - last.double()).flatten(1)
        step_length = step.norm(dim=1)
        if before is not None:
            product = before_length * step_length
            moves = product > 0
            cosines = cosines + torch.where(moves, (before * step).sum(dim=1) / product.where(moves, 1.0), 0.0)
            pairs = pairs + moves
        length = length + step_length
        before, before_length, last, num_steps = step, step_length, state, num_steps + 1
    if num_steps < 2:
        raise ValueError(too_few_steps(num_steps))
    distance = (last.double() - first.double()).flatten(1).norm(dim=1)
    geometry = PathGeometry(
        straightness=torch.where(pairs > 0, cosines / pairs.clamp_min(1), 1.0).cpu(),
        efficiency=torch.where(length > 0, distance / length.where(length > 0, 1.0), 1.0).clamp_max(1.0).cpu(),
    )
    return last, geometry


def too_few_steps(num_steps: int) -> str:
    """What is wrong with a path of one step."""
    return (
        f"A path needs at least two steps to be straight or not, and this sampler takes {num_steps}. Raise its number "
        "of steps, such as by sampler.num_steps=2, or choose job.path_geometry=false."
    )
