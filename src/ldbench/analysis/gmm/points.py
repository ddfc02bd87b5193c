"""Points that a mixture is fitted to, seen a chunk at a time, so that they need not fit into memory."""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor


class Points(Protocol):
    """Points in the same order at every pass over them."""

    dim: int
    device: torch.device

    def __len__(self) -> int: ...

    def chunks(self, size: int) -> Iterator[Tensor]:
        """(n, D) float32 or float64, n at most `size`, until all were seen once."""
        ...

    def rows(
        self,
        places: Tensor,  # (m,) int64 of the CPU, ascending
    ) -> Tensor:  # (m, D)
        """Some of the points."""
        ...


class HeldPoints:
    """Points in memory."""

    def __init__(
        self,
        x: Tensor,  # (n, D)
    ):
        self.x = x
        self.dim = x.shape[1]
        self.device = x.device

    def __len__(self) -> int:
        return len(self.x)

    def chunks(self, size: int) -> Iterator[Tensor]:
        """The points, cut."""
        yield from self.x.split(size)

    def rows(self, places: Tensor) -> Tensor:
        """Some of the points."""
        return self.x[places.to(self.device)]


def held(points: Points) -> HeldPoints:
    """All points, read once into memory."""
    return HeldPoints(torch.cat(list(points.chunks(65_536))))
