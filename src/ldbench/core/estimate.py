"""Estimate: a measured number."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A measured number, with the bounds of its 95 % interval and its standard error where it has them.

    The interval may be asymmetric, and cut where the number cannot be; the standard error is neither. `freedom`: the
    degrees of freedom behind the standard error; None: many, if there is one.
    """

    value: float
    low: float | None = None
    high: float | None = None
    standard_error: float | None = None
    freedom: float | None = None

    def times(self, factor: float) -> "Estimate":
        """In another unit: `factor` is greater than 0."""
        numbers = (self.low, self.high, self.standard_error)
        low, high, error = (None if number is None else number * factor for number in numbers)
        return Estimate(self.value * factor, low, high, error, self.freedom)
