"""The toy networks of the reference vectors, given as formulas in `config.toy`; t and y have shape (B, 1, 1)."""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Toy = Callable[[Tensor, Tensor, Tensor], Tensor]
NUMBER = r"(\d[\d.]*(?:e-?\d+)?)"


def velocity_toy(text: str) -> Toy:
    """The toy of a velocity: `a*x - b*sin(c*t)`, its first term perhaps inside a tanh, and perhaps `+ d*y/e` behind."""
    formula = rf"(tanh\()?{NUMBER}[ *]*x\)? ([+-]) {NUMBER}[ *]*sin\({NUMBER}[ *]*t\)(?: \+ {NUMBER}[ *]*y/{NUMBER})?"
    bent, of_x, sign, of_sine, of_t, of_y, divisor = parse(formula, text)
    a, b, c, d, e = float(of_x), float(f"{sign}{of_sine}"), float(of_t), float(of_y or 0), float(divisor or 1)
    bend = torch.tanh if bent else torch.clone
    return lambda x, t, y: bend(a * x) + b * torch.sin(c * t) + d * y / e


def variance_toy(text: str) -> Toy:
    """The toy of a prediction and its variance: `[a*x + s, tanh(x + s)]` over channels, with `s = b*sin(c*t)`."""
    of_x, of_sine, of_t = map(
        float, parse(rf"\[{NUMBER}\*x \+ s, tanh\(x \+ s\)\], s = {NUMBER}\*sin\({NUMBER}\*t\)", text)
    )

    def network(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        s = of_sine * torch.sin(of_t * t)
        return torch.cat([of_x * x + s, torch.tanh(x + s)], dim=-1)

    return network


def parse(pattern: str, text: str) -> tuple[Any, ...]:
    """The parts of a formula. Fails where a text holds no formula of this form."""
    match = re.search(pattern, text)
    assert match, f"no test knows a toy network like {text}"
    return match.groups()
