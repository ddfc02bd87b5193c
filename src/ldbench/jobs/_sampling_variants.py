"""SamplingVariants: one trained generator with other guidance, steps and weight averages."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ldbench.core.field import Field
from ldbench.core.generator import Generator
from ldbench.core.interfaces import Guidance, Sampler


@dataclass(frozen=True)
class SamplingVariants:
    """Builds the parts of a generator's sampling for any value of what a search varies."""

    averages: Sequence[float | None]  # decays of the weight averages at hand, the exported one first; None: not known
    load_generator: Callable[[float | None], Generator]  # with the weights of one of these averages, in eval mode
    build_sampler: Callable[[int | None], Sampler]  # of so many steps; None: as configured
    build_guidance: Callable[[Generator, float, float, float], Guidance]  # of a scale on an interval [low, high]


class CountedGuidance:
    """A guidance that counts the items of the network calls that are made through it."""

    revision: ClassVar[int] = 1  # it changes no number

    def __init__(self, guidance: Guidance):
        self.guidance = guidance
        self._fields: list[Field] = []

    def __call__(self, field: Field) -> Field:
        """The guided field, whose calls are counted."""
        guided = self.guidance(field)
        self._fields.append(guided)
        return guided

    @property
    def items(self) -> int:
        """The number of items in all network calls so far."""
        return sum(field.items for field in self._fields)
