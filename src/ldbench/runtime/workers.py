"""Shares: work that several processes of this machine do, a share each. All end where one does; what was finished stays."""

import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.queues import SimpleQueue
from typing import Protocol, TypeVar

import torch
from torch.multiprocessing.spawn import ProcessException, spawn

from ldbench.runtime.device import disable_tf32
from ldbench.runtime.memory import keep_freed_memory

EVERY = 0.2  # seconds between two looks at what the processes have done

Item = TypeVar("Item")
Taken = TypeVar("Taken", contravariant=True)
Said = SimpleQueue  # how much was done, or what was refused


class Work(Protocol[Taken]):
    """What a process does with its share. It goes to the process as a pickle, its tensors from the CPU."""

    def __call__(
        self,
        share: Sequence[Taken],
        *,
        device: torch.device,
        advance: Callable[[int], None],  # told how much was done
    ) -> None: ...


def split_evenly(items: Sequence[Item], num_processes: int) -> list[Sequence[Item]]:
    """Shares of some items for so many processes at most, as even as they go, none empty; together they are the items in their order."""
    num = max(1, min(num_processes, len(items)))
    return [items[len(items) * rank // num : len(items) * (rank + 1) // num] for rank in range(num)]


def run_parallel(
    work: Work[Item],
    shares: Sequence[Sequence[Item]],
    *,
    device: torch.device,
    advance: Callable[[int], None],
) -> None:
    """Does each share in a process of its own, on a CUDA device of its own where there is one, in as many threads as this process.

    Raises what one of them refuses (ValueError, OSError), and ChildProcessError where one comes to any other end.
    """
    said = multiprocessing.get_context("spawn").SimpleQueue()
    running = spawn(
        do_share, args=(work, shares, device, torch.get_num_threads(), said), nprocs=len(shares), join=False
    )
    assert running is not None
    ended, refused = False, []
    while not ended:
        try:
            ended = running.join(timeout=EVERY)
        except ProcessException as error:
            refused += heard(said, advance)
            if refused:
                raise refused[0] from error
            raise ChildProcessError(
                f"One of {len(shares)} processes that share this work came to an end: {error}\nThe same command goes on with what was finished."
            ) from error
        refused += heard(said, advance)


def heard(said: "Said[int | Exception]", advance: Callable[[int], None]) -> list[Exception]:
    """Passes on how much was done since it was last asked, and returns what was refused."""
    refused = []
    while not said.empty():
        told = said.get()
        if isinstance(told, int):
            advance(told)
        else:
            refused.append(told)
    return refused


def do_share(
    rank: int,
    work: Work[Item],
    shares: Sequence[Sequence[Item]],
    device: torch.device,
    threads: int,
    said: "Said[int | Exception]",
) -> None:
    """What a process of `run_parallel` does: its share, in as many threads as the others."""
    torch.set_num_threads(threads)
    disable_tf32()
    keep_freed_memory()
    own = torch.device("cuda", rank % torch.cuda.device_count()) if device.type == "cuda" else device
    try:
        work(shares[rank], device=own, advance=said.put)
    except (ValueError, OSError) as error:
        said.put(error)
        raise
