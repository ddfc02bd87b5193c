"""Processes that are forked from the test process: a new one would import torch and Lightning for ten seconds.

They have an environment, streams and a working directory of their own, and end without Python's exit handlers.
"""

import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from torch.multiprocessing.spawn import start_processes

PAUSE = 0.01  # seconds between looks at a process


class Forked:
    """Runs a function in a process of its own, as `subprocess.Popen` runs a command; its output goes to one file."""

    def __init__(
        self,
        work: Callable[[], object],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ):
        self.log = log
        self.returncode: int | None = None
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # else the child writes what is left too
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                begin(log, environment, cwd)
                status = status_of(work)
            finally:
                os._exit(status)

    def poll(self) -> int | None:
        """The exit status, where it has ended."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float = 600) -> int:
        """The exit status, once it has ended."""
        deadline = time.monotonic() + timeout
        while (status := self.poll()) is None:
            assert time.monotonic() < deadline, f"it did not end in {timeout} s: {self.output()[-4000:]}"
            time.sleep(PAUSE)
        return status

    def output(self) -> str:
        """Returns what it has written."""
        return self.log.read_text()

    def send_signal(self, sent: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, sent)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def begin(log: Path, environment: Mapping[str, str] | None, cwd: Path | None) -> None:
    """Gives a forked process its own signals, environment, folder and streams."""
    for sent in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sent, signal.default_int_handler if sent is signal.SIGINT else signal.SIG_DFL)
    if environment is not None:
        os.environ.clear()
        os.environ.update(environment)
    if cwd is not None:
        os.chdir(cwd)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(out, descriptor)
    sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", buffering=1, closefd=False) for descriptor in (1, 2))


def status_of(work: Callable[[], object]) -> int:
    """Returns the exit status of a function; errors are printed as Python prints them."""
    try:
        work()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def is_running(pid: int) -> bool:
    """Whether a process still runs; one that waits to be collected does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def entering(entry: ModuleType, *words: str) -> Callable[[], None]:
    """What `python -m ENTRY WORDS` does in a process that has imported all already."""

    def enter() -> None:
        from hydra.core.global_hydra import GlobalHydra
        from hydra.core.hydra_config import HydraConfig

        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = None
        sys.argv = [entry.__name__, *words]
        entry.main()

    return enter


def share(work: Callable[..., None], args: tuple[Any, ...], **how: Any) -> Any:
    """Does what torch's `spawn` does, by forks; arguments are pickled here too."""
    *given, queue = args  # a process inherits the queue
    held = pickle.dumps(given)
    return start_processes(partial(shared, work, held, queue), **how, start_method="fork")


def shared(work: Callable[..., None], held: bytes, queue: Any, rank: int) -> None:
    """See `share`."""
    work(rank, *pickle.loads(held), queue)
