"""The base of samplers: the samples are the last of the states that a sampler goes through."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from torch import Tensor

from ldbench.core.field import Field
from ldbench.core.interfaces import Increments
from ldbench.core.interpolant import Interpolant
from ldbench.sampling.grid import last_of


class StatesSampler(ABC):
    """A sampler that is defined by its states; subclasses yield them in `states`."""

    revision: ClassVar[int]
    yields_each_step: ClassVar[bool] = True  # whether `states` has the state after every step that it takes

    def check(self, interpolant: Interpolant) -> None:  # noqa: B027  # a hook that most samplers leave empty
        """Raises ValueError for an interpolant that the sampler cannot use; here every interpolant is accepted."""

    def __call__(
        self,
        field: Field,
        noise: Tensor,  # (B, N, C)
        y: Tensor,  # (B,)
        *,
        stream: Increments | None = None,
        increments: Tensor | None = None,  # (steps, B, N, C)
    ) -> Tensor:  # (B, N, C) float32
        """The samples. Raises ValueError for an interpolant that it cannot use, and for missing noise."""
        self.check(field.interpolant)
        return last_of(self.states(field, noise, y, stream=stream, increments=increments)).float()

    @abstractmethod
    def states(
        self,
        field: Field,
        noise: Tensor,  # (B, N, C)
        y: Tensor,  # (B,)
        *,
        stream: Increments | None = None,
        increments: Tensor | None = None,  # (steps, B, N, C)
    ) -> Iterator[Tensor]:  # (B, N, C) each
        """Yields the noise and the state after each step, without gradients."""
