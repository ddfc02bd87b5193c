"""Explicit Runge-Kutta rules: one step along a velocity.

[0] Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, 1993 (section II.1)
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Rule:
    """A Butcher tableau [0]: stage i is at the fraction `nodes[i]` of a step and uses `stages[i]` of earlier slopes."""

    order: int
    nodes: tuple[float, ...]
    stages: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]  # of the slopes in the step

    def step(
        self,
        velocity: Callable[[Tensor, float], Tensor],
        x: Tensor,  # (B, N, C)
        start: float,
        end: float,
    ) -> Tensor:  # (B, N, C)
        """x at the end of a step, from one velocity per stage."""
        length = end - start
        slopes: list[Tensor] = []
        for node, row in zip(self.nodes, self.stages, strict=True):
            stage = x + length * weighted_sum(row, slopes) if slopes else x
            slopes.append(velocity(stage, end if node == 1 else start + node * length))
        return x + length * weighted_sum(self.weights, slopes)


def weighted_sum(weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    """The weighted sum of the slopes, without those of weight 0."""
    terms = (weight * slope for weight, slope in zip(weights, slopes, strict=True) if weight)
    return sum(terms)  # type: ignore[return-value]  # there is at least one


RULES = {
    "euler": Rule(1, (0,), ((),), (1,)),
    "midpoint": Rule(2, (0, 1 / 2), ((), (1 / 2,)), (0, 1)),
    "heun": Rule(2, (0, 1), ((), (1,)), (1 / 2, 1 / 2)),
    "heun3": Rule(3, (0, 1 / 3, 2 / 3), ((), (1 / 3,), (0, 2 / 3)), (1 / 4, 0, 3 / 4)),
    # the 3/8 rule
    "rk4": Rule(4, (0, 1 / 3, 2 / 3, 1), ((), (1 / 3,), (-1 / 3, 1), (1, -1, 1)), (1 / 8, 3 / 8, 3 / 8, 1 / 8)),
}


def get_rule(name: str) -> Rule:
    """The rule with this name. Raises ValueError for an unknown one."""
    if name not in RULES:
        raise ValueError(f"Unknown rule {name!r}. Choose one of {', '.join(RULES)}.")
    return RULES[name]
