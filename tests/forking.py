"""Processes that are forked: a new one would import torch and Lightning for ten seconds."""

import multiprocessing
import os
import pickle
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch.multiprocessing.spawn import start_processes


class Forked:
    """Runs a function in a process of its own, as `subprocess.Popen` runs a command; its output goes to one file.

    The process is forked from a server that has imported all and started no thread, since a fork of threads is unsafe.
    """

    def __init__(
        self,
        work: Callable[[], object],  # can be pickled
        log: Path,
        environment: Mapping[str, str],
    ):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.preloaded"])
        self.log = log
        self.process = context.Process(target=run, args=(work, log, environment))
        self.process.start()

    def wait(self, timeout: float = 600) -> int:
        """The exit status, once it has ended."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, f"it did not end in {timeout} s: {self.output()[-4000:]}"
        return self.process.exitcode

    def output(self) -> str:
        """Returns what it has written."""
        return self.log.read_text()


def run(work: Callable[[], object], log: Path, environment: Mapping[str, str]) -> None:
    """What the process does, with streams and an environment of its own."""
    os.environ.clear()
    os.environ.update(environment)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(out, descriptor)
    sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", buffering=1, closefd=False) for descriptor in (1, 2))
    work()


def share(work: Callable[..., None], args: tuple[Any, ...], **how: Any) -> Any:
    """Does what torch's `spawn` does, by forks; arguments are pickled here too."""
    *given, queue = args  # a process inherits the queue
    held = pickle.dumps(given)
    return start_processes(partial(shared, work, held, queue), **how, start_method="fork")


def shared(work: Callable[..., None], held: bytes, queue: Any, rank: int) -> None:
    """See `share`."""
    work(rank, *pickle.loads(held), queue)
