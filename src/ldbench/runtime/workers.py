"""Work split over worker processes of this machine. When one fails all end; finished work is kept."""

import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.queues import SimpleQueue
from typing import Protocol, TypeVar

import torch
from torch.multiprocessing.spawn import ProcessException, spawn

from ldbench.runtime.device import disable_tf32
from ldbench.runtime.memory import keep_freed_memory

POLL_SECONDS = 0.2  # between two looks at the messages of the processes

Item = TypeVar("Item")
ItemIn = TypeVar("ItemIn", contravariant=True)
Messages = SimpleQueue  # of finished counts and exceptions


class Work(Protocol[ItemIn]):
    """The function that a worker process applies to its share of the items.

    It is pickled, with its tensors on the CPU.
    """

    def __call__(
        self,
        share: Sequence[ItemIn],
        *,
        device: torch.device,
        advance: Callable[[int], None],  # called with the number of finished items
    ) -> None:
        """Processes the share."""
        ...


def split_evenly(items: Sequence[Item], num_processes: int) -> list[Sequence[Item]]:
    """The items in at most `num_processes` consecutive shares of almost equal size, none empty unless all are."""
    num = max(1, min(num_processes, len(items)))
    return [items[len(items) * rank // num : len(items) * (rank + 1) // num] for rank in range(num)]


def run_parallel(
    work: Work[Item],
    shares: Sequence[Sequence[Item]],
    *,
    device: torch.device,
    advance: Callable[[int], None],
) -> None:
    """Runs `work` on each share in a process of its own, on a CUDA device of its own where possible,
    with as many threads as here.

    Raises the ValueError or OSError that a worker raised, and ChildProcessError where one ends in any other way.
    """
    messages = multiprocessing.get_context("spawn").SimpleQueue()
    processes = spawn(
        run_worker, args=(work, shares, device, torch.get_num_threads(), messages), nprocs=len(shares), join=False
    )
    assert processes is not None
    finished, errors = False, []
    while not finished:
        try:
            finished = processes.join(timeout=POLL_SECONDS)
        except ProcessException as error:
            errors += receive(messages, advance)
            if errors:
                raise errors[0] from error
            raise ChildProcessError(
                f"One of {len(shares)} worker processes ended unexpectedly: {error}\n"
                "The same command resumes with what was finished."
            ) from error
        errors += receive(messages, advance)


def receive(messages: "Messages[int | Exception]", advance: Callable[[int], None]) -> list[Exception]:
    """Passes received counts to `advance`, and returns received exceptions."""
    errors = []
    while not messages.empty():
        message = messages.get()
        if isinstance(message, int):
            advance(message)
        else:
            errors.append(message)
    return errors


def run_worker(
    rank: int,
    work: Work[Item],
    shares: Sequence[Sequence[Item]],
    device: torch.device,
    threads: int,
    messages: "Messages[int | Exception]",
) -> None:
    """The main function of a worker process of `run_parallel`."""
    torch.set_num_threads(threads)
    disable_tf32()
    keep_freed_memory()
    own = torch.device("cuda", rank % torch.cuda.device_count()) if device.type == "cuda" else device
    try:
        work(shares[rank], device=own, advance=messages.put)
    except (ValueError, OSError) as error:
        messages.put(error)
        raise
