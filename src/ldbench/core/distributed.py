"""A batch split over several processes: random draws and batch statistics are the same as in one process.

Process `rank` of `world` has every `world`-th image of a batch. Random numbers for images are drawn for the whole batch
by every process, and each keeps the rows of its own images. Outside `data_parallel`, and with one process, every
function here is the plain call.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed


@dataclass(frozen=True)
class RankInfo:
    """The rank of a process and their number: it has the images `rank`, `rank + world`, ... of each batch."""

    rank: int
    world: int


_rank = RankInfo(0, 1)  # a plain global, which torch.compile can read


def rank_info() -> RankInfo:
    """The rank of this process within the current batch."""
    return _rank


@contextmanager
def data_parallel(rank: int, world: int) -> Iterator[None]:
    """Within it, a batch is split: this process has the images `rank`, `rank + world`, ..., the others the rest."""
    global _rank
    before, _rank = _rank, RankInfo(rank, world)
    try:
        yield
    finally:
        _rank = before


def draw_for_global_batch(draw: Callable[[int], Tensor], num_images: int, *, dim: int = 0) -> Tensor:
    """Calls `draw` with the size of the global batch, and returns the `num_images` of this process along `dim`."""
    if _rank.world == 1:
        return draw(num_images)
    own = torch.arange(_rank.rank, _rank.world * num_images, _rank.world)
    whole = draw(_rank.world * num_images)
    return whole.index_select(dim, own.to(whole.device, non_blocking=True))


def normal_like(
    x: Tensor,  # (B, ...)
) -> Tensor:  # (B, ...)
    """Standard normal noise of the shape, precision and device of a batch."""
    if _rank.world == 1:
        return torch.randn_like(x)
    return draw_for_global_batch(lambda count: torch.randn(count, *x.shape[1:], dtype=x.dtype, device=x.device), len(x))


def mean_over_ranks(x: Tensor) -> Tensor:
    """The mean of a tensor over the processes, without gradients."""
    if _rank.world == 1:
        return x
    total = x.detach().clone().contiguous()
    distributed.all_reduce(total)
    return total / _rank.world


def global_mean(
    values: Tensor,  # of this process; their number may differ between processes
) -> Tensor:  # ()
    """This process's part of the mean over all processes' values: the processes' results average to that mean."""
    if _rank.world == 1:
        return values.mean()
    return values.sum() / mean_over_ranks(values.new_full((), values.numel()))


class _Total(torch.autograd.Function):
    """The sum over the processes; its gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone().contiguous()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone().contiguous()
        distributed.all_reduce(total)
        return total


def sum_over_ranks(x: Tensor) -> Tensor:
    """The sum of a tensor over the processes, with gradients to each of them."""
    return x if _rank.world == 1 else _Total.apply(x)
