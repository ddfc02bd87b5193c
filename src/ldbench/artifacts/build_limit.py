"""A limit on what an untrusted config may allocate: a width of a billion is refused before its memory is requested.

[0] PyTorch, TorchDispatchMode, https://docs.pytorch.org/docs/stable/notes/extending.html (sees every operation)
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

MIN_LARGEST_NUMEL = 1 << 26  # elements of a tensor that any model may create: tables of positions
NUMEL_PER_WEIGHT = 8  # elements that may be created for each element of the weights
MIN_OPERATIONS = 5000  # operations that any model may take to be built
OPERATIONS_PER_TENSOR = 50  # further operations for each tensor of the weights
SCALAR_SIZED = ("arange", "linspace", "logspace", "eye", "full", "hann_window")  # their scalar arguments are sizes


class BuildLimit(TorchDispatchMode):
    """Within this context, no tensor is larger than the weights account for, nor is there much more in total.

    Raises ValueError before the memory is requested. Changes no number.
    """

    def __init__(self, state: Mapping[str, Tensor]):
        super().__init__()
        total = sum(value.numel() for value in state.values())
        largest = max((value.numel() for value in state.values()), default=0)
        self.largest = max(MIN_LARGEST_NUMEL, NUMEL_PER_WEIGHT * largest)
        self.remaining = 4 * MIN_LARGEST_NUMEL + NUMEL_PER_WEIGHT * total
        self.operations = MIN_OPERATIONS + OPERATIONS_PER_TENSOR * len(state)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs an operation after checking the sizes that it requests."""
        self.operations -= 1
        self.spend(allocated_numel(func, args), max(result_numels(args), default=0))
        if self.operations < 0:
            raise ValueError("they create more tensors than any model with these weights has")
        return func(*args, **(kwargs or {}))

    def spend(self, allocated: int, result: int) -> None:
        """Subtracts newly allocated elements from what remains; `result`: elements of a result that tensors yield."""
        self.remaining -= allocated
        if max(allocated, result) > self.largest or self.remaining < 0:
            raise ValueError(
                f"they request a tensor of {max(allocated, result)} elements, more than these weights account for"
            )


def allocated_numel(func: Any, args: Sequence[Any]) -> int:
    """The number of elements that an operation allocates, as far as its sizes show; 0 if it allocates none."""
    name = func.overloadpacket.__name__
    if name in SCALAR_SIZED:
        scalars = [abs(int(arg)) for arg in args if isinstance(arg, int | float) and math.isfinite(arg)]
        largest = max(scalars, default=0)
        return largest * largest if name == "eye" and len(scalars) == 1 else max(largest, shape_numel(args))
    if any(isinstance(arg, Tensor) for arg in args[:1]):
        return shape_numel(args) if name in ("repeat", "new_empty", "new_zeros", "new_ones", "new_full") else 0
    return shape_numel(args)


def result_numels(args: Sequence[Any]) -> Iterator[int]:
    """Upper bounds of a result's elements: of each tensor alone, of all broadcast together, of all concatenated."""
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    yield from (tensor.numel() for tensor in tensors)
    if len(tensors) > 1:
        axes = zip_longest(*(reversed(tensor.shape) for tensor in tensors), fillvalue=1)
        yield math.prod(max(sides) for sides in axes)
    for rows in (
        arg for arg in args if isinstance(arg, list | tuple) and arg and all(isinstance(one, Tensor) for one in arg)
    ):
        yield sum(row.numel() for row in rows)


def shape_numel(args: Sequence[Any]) -> int:
    """The number of elements of the first shape among some arguments, such as [3, 4]; 0 without a shape."""
    sizes = (arg for arg in args if isinstance(arg, list | tuple) and arg and all(type(side) is int for side in arg))
    return math.prod(map(abs, next(sizes, (0,))))
