"""Estimate: a measured number."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A measured number, with the bounds of its 95 % interval where it has one."""

    value: float
    low: float | None = None
    high: float | None = None

    def times(self, factor: float) -> "Estimate":
        """In another unit: `factor` is greater than 0."""
        return Estimate(self.value * factor, *(None if end is None else end * factor for end in (self.low, self.high)))
