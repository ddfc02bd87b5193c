"""Points that a mixture is fitted to, read in chunks, so that they need not fit into memory."""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor


class Points(Protocol):
    """Points in the same order in every pass over them."""

    dim: int
    device: torch.device

    def __len__(self) -> int: ...

    def chunks(self, size: int) -> Iterator[Tensor]:
        """(n, D) float32 or float64, n at most `size`; each point once."""
        ...

    def rows(
        self,
        indices: Tensor,  # (m,) int64 on the CPU, ascending
    ) -> Tensor:  # (m, D)
        """The points of these indices."""
        ...


class PointsInMemory:
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
        """The points in chunks."""
        yield from self.x.split(size)

    def rows(self, indices: Tensor) -> Tensor:
        """The points of these indices."""
        return self.x[indices.to(self.device)]


def load_points(points: Points) -> PointsInMemory:
    """All points, loaded into memory."""
    return PointsInMemory(torch.cat(list(points.chunks(65_536))))
