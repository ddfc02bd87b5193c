"""Estimate: a measured number."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A measured number, with the ends of its 95 % interval where it has one."""

    value: float
    low: float | None = None
    high: float | None = None
