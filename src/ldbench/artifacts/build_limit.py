"""An allowance: how much a stranger's numbers may build. A width of a billion is refused before its memory is asked for.

[0] PyTorch, TorchDispatchMode, https://docs.pytorch.org/docs/stable/notes/extending.html (every operation passes through it)
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

LARGEST = 1 << 26  # numbers of a tensor that any model may make: the tables of its positions
TIMES = 8  # as many numbers as the weights hold
FEW, EACH = 5000, 50  # operations that any model may take to be built, and for each of its weights
COUNTED = ("arange", "linspace", "logspace", "eye", "full", "hann_window")  # their scalars are sizes


class Allowance(TorchDispatchMode):
    """In its context, no tensor is made of more numbers than the largest of some weights accounts for, nor many more of them.

    Raises ValueError, before the memory is asked for. No number is changed by it.
    """

    def __init__(self, state: Mapping[str, Tensor]):
        super().__init__()
        total = sum(value.numel() for value in state.values())
        self.largest = max(LARGEST, TIMES * max((value.numel() for value in state.values()), default=0))
        self.left = 4 * LARGEST + TIMES * total
        self.operations = FEW + EACH * len(state)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs an operation, after a look at the sizes that it asks for."""
        self.operations -= 1
        self.spend(asked(func, args), max(broadcast(args), default=0))
        if self.operations < 0:
            raise ValueError("they make more tensors than any model of these weights has")
        return func(*args, **(kwargs or {}))

    def spend(self, numbers: int, seen: int) -> None:
        """Takes new numbers from what is left; `seen`: of what an operation makes of tensors."""
        self.left -= numbers
        if max(numbers, seen) > self.largest or self.left < 0:
            raise ValueError(
                f"they ask for a tensor of {max(numbers, seen)} numbers, more than these weights account for"
            )


def asked(func: Any, args: Sequence[Any]) -> int:
    """How many numbers an operation makes anew, as far as its sizes tell; 0 where it makes none."""
    name = func.overloadpacket.__name__
    if name in COUNTED:
        scalars = [abs(int(arg)) for arg in args if isinstance(arg, int | float) and math.isfinite(arg)]
        most = max(scalars, default=0)
        return most * most if name == "eye" and len(scalars) == 1 else max(most, product(args))
    if any(isinstance(arg, Tensor) for arg in args[:1]):
        return product(args) if name in ("repeat", "new_empty", "new_zeros", "new_ones", "new_full") else 0
    return product(args)


def broadcast(args: Sequence[Any]) -> Iterator[int]:
    """How many numbers operations on tensors come to: on each alone, on all against each other, in a row."""
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    yield from (tensor.numel() for tensor in tensors)
    if len(tensors) > 1:
        axes = zip_longest(*(reversed(tensor.shape) for tensor in tensors), fillvalue=1)
        yield math.prod(max(sides) for sides in axes)
    for rows in (
        arg for arg in args if isinstance(arg, list | tuple) and arg and all(isinstance(one, Tensor) for one in arg)
    ):
        yield sum(row.numel() for row in rows)


def product(args: Sequence[Any]) -> int:
    """The numbers of the first size among some arguments, such as [3, 4]."""
    sizes = (arg for arg in args if isinstance(arg, list | tuple) and arg and all(type(side) is int for side in arg))
    return math.prod(map(abs, next(sizes, (0,))))
