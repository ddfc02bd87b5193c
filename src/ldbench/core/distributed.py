"""A batch shared by several processes: each image's draws, and what is measured of all images, are those of one process.

Of a batch, process `rank` of `world` has every `world`-th image. What is drawn for images is drawn for the whole batch, by every process alike,
and each keeps the rows of its own. Outside `data_parallel`, and with one process, all here is the plain call.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed


@dataclass(frozen=True)
class RankInfo:
    """Which images of each batch a process has."""

    rank: int
    world: int


_share = RankInfo(0, 1)  # a plain global, which torch.compile can read


def rank_info() -> RankInfo:
    """This process's part of the batch at hand."""
    return _share


@contextmanager
def data_parallel(rank: int, world: int) -> Iterator[None]:
    """Inside, this process has the images `rank`, `rank + world`, ... of a batch, and others have the rest at the same time."""
    global _share
    before, _share = _share, RankInfo(rank, world)
    try:
        yield
    finally:
        _share = before


def draw_for_global_batch(draw: Callable[[int], Tensor], num_images: int, *, dim: int = 0) -> Tensor:
    """What `draw` makes for as many images as the whole batch has, at this process's `num_images` of them, which lie along `dim`."""
    if _share.world == 1:
        return draw(num_images)
    own = torch.arange(_share.rank, _share.world * num_images, _share.world)
    whole = draw(_share.world * num_images)
    return whole.index_select(dim, own.to(whole.device, non_blocking=True))


def normal_like(
    x: Tensor,  # (B, ...)
) -> Tensor:  # (B, ...)
    """Standard normals of the shape, precision and device of a batch."""
    if _share.world == 1:
        return torch.randn_like(x)
    return draw_for_global_batch(lambda count: torch.randn(count, *x.shape[1:], dtype=x.dtype, device=x.device), len(x))


def mean_over_ranks(x: Tensor) -> Tensor:
    """The mean of a tensor over the processes, without gradients."""
    if _share.world == 1:
        return x
    total = x.detach().clone().contiguous()
    distributed.all_reduce(total)
    return total / _share.world


def global_mean(
    values: Tensor,  # as many as a process happens to have
) -> Tensor:  # ()
    """The mean of values, of which a process may have more than another: over the processes, the mean of these means is that of all values."""
    if _share.world == 1:
        return values.mean()
    return values.sum() / mean_over_ranks(values.new_full((), values.numel()))


class _Total(torch.autograd.Function):
    """The sum over the processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        total = x.clone().contiguous()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        total = gradient.clone().contiguous()
        distributed.all_reduce(total)
        return total


def sum_over_ranks(x: Tensor) -> Tensor:
    """The sum of a tensor over the processes, through which gradients pass to each."""
    return x if _share.world == 1 else _Total.apply(x)
