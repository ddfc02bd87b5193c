"""Base classes of loss terms: the weight, its start and warm-up, and the gradient balancing.

A term of another package may subclass these, or only have the attributes of `ldbench.core.interfaces.LossTerm`.
"""

from typing import Literal, get_args

from torch import nn

Balancing = Literal["none", "encoder", "decoder"]


class BaseTerm(nn.Module):
    """A loss term with the weight and schedule that a stage's yaml sets. Raises ValueError for a negative number."""

    def __init__(self, *, weight: float, start: int, warmup: int):
        super().__init__()
        _validate_not_negative(weight=weight, start=start, warmup=warmup)
        self.weight = weight
        self.start = start
        self.warmup = warmup


class BalancedTerm(BaseTerm):
    """A loss term that can be weighted by gradient norms.

    Raises ValueError for an unknown balancing or a negative number.
    """

    def __init__(self, *, weight: float, start: int, warmup: int, balancing: Balancing, largest_balance: float):
        super().__init__(weight=weight, start=start, warmup=warmup)
        if balancing not in get_args(Balancing):
            raise ValueError(f"Unknown balancing {balancing!r}. Choose one of {', '.join(get_args(Balancing))}.")
        _validate_not_negative(largest_balance=largest_balance)
        self.balancing = balancing
        self.largest_balance = largest_balance


def _validate_not_negative(**numbers: float) -> None:
    for name, number in numbers.items():
        if number < 0:
            raise ValueError(f"{name} must not be negative, got {number}.")
