"""MeasuredSamples: somebody's images, as a measurement of them describes its subject."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class MeasuredSamples:
    """A set of images that a job measures, in place of a model."""

    name: str  # for people: whose they are
    digest: str  # sha256 of their names and contents
    protocol: Mapping[str, Any]  # what of the protocol the images themselves say: their number, and their labels

    @property
    def identity(self) -> str:
        """Its name with the beginning of its digest, as artifacts are named."""
        return f"{self.name}-{self.digest[:8]}"
