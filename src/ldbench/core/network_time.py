"""The time conventions of networks: ours is 0 at the noise and 1 at the data."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class NetworkTime:
    """A network's time convention: its time is `start + direction * t` for our t."""

    start: float
    direction: float

    def of(
        self,
        t: Tensor,  # (B,) 0 noise, 1 data
    ) -> Tensor:  # (B,) float64
        """The network's time."""
        return self.start + self.direction * t.detach().to("cpu", torch.float64)

    def velocity(self, velocity: Tensor) -> Tensor:
        """A velocity converted between the conventions; both directions are the same."""
        return self.direction * velocity


NETWORK_TIMES = {"data_at_one": NetworkTime(0.0, 1.0), "noise_at_one": NetworkTime(1.0, -1.0)}
