"""Explicit Runge-Kutta rules: how to go one step along a velocity.

[0] Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, 1993 (section II.1)
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Rule:
    """A tableau [0]: stage i stands at `places[i]` of the step, moved by `stages[i]` of the slopes before it; `weights` average the slopes."""

    order: int
    places: tuple[float, ...]
    stages: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]

    def step(
        self,
        velocity: Callable[[Tensor, float], Tensor],
        x: Tensor,  # (B, N, C)
        start: float,
        end: float,
    ) -> Tensor:  # (B, N, C)
        """x at the end of a step, from one velocity for each stage."""
        length = end - start
        slopes: list[Tensor] = []
        for place, row in zip(self.places, self.stages, strict=True):
            moved = x + length * weighted(row, slopes) if slopes else x
            slopes.append(velocity(moved, end if place == 1 else start + place * length))
        return x + length * weighted(self.weights, slopes)


def weighted(weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    """The sum of the slopes by weight, without those that do not count."""
    return sum(weight * slope for weight, slope in zip(weights, slopes, strict=True) if weight)


RULES = {
    "euler": Rule(1, (0,), ((),), (1,)),
    "midpoint": Rule(2, (0, 1 / 2), ((), (1 / 2,)), (0, 1)),
    "heun": Rule(2, (0, 1), ((), (1,)), (1 / 2, 1 / 2)),
    "heun3": Rule(3, (0, 1 / 3, 2 / 3), ((), (1 / 3,), (0, 2 / 3)), (1 / 4, 0, 3 / 4)),
    "rk4": Rule(
        4, (0, 1 / 3, 2 / 3, 1), ((), (1 / 3,), (-1 / 3, 1), (1, -1, 1)), (1 / 8, 3 / 8, 3 / 8, 1 / 8)
    ),  # the 3/8 rule
}


def rule_named(name: str) -> Rule:
    """The rule of a name. Raises ValueError for one that there is not."""
    if name not in RULES:
        raise ValueError(f"Unknown rule {name!r}. Choose one of {', '.join(RULES)}.")
    return RULES[name]
