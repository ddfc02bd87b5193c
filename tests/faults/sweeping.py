"""A sweep whose processes are forked instead of started: importing torch would take most of their time."""

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO

from hydra.core.global_hydra import GlobalHydra

from ldbench import train
from ldbench.sweeps import processes


class ForkedPopen:
    """What `subprocess.Popen` is for a sweep: `python -m MODULE WORDS` in a session of its own."""

    def __init__(
        self,
        words: Sequence[str],
        *,
        stdin: int,
        stdout: IO[str],
        stderr: int,
        env: Mapping[str, str],
        start_new_session: bool,
    ):
        assert words[:2] == [sys.executable, "-m"]
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            try:
                status = begin(words[2], words[3:], stdout, env)
            except BaseException:
                traceback.print_exc()
                status = 1
            os._exit(status)

    def poll(self) -> int | None:
        """The exit status, where it has ended."""
        return self.wait(os.WNOHANG)

    def wait(self, options: int = 0) -> int | None:
        """The exit status, once it has ended."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


def begin(module: str, words: Sequence[str], out: IO[str], env: Mapping[str, str]) -> int:
    """What a started process does, up to its exit status."""
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(env)
    os.dup2(out.fileno(), 1)
    os.dup2(out.fileno(), 2)
    sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1, closefd=False)
    return entered(module, words)


def entered(module: str, words: Sequence[str]) -> int:
    """The exit status of an entry point."""
    GlobalHydra.instance().clear()
    sys.argv = [module, *words]
    try:
        importlib.import_module(module).main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def sweep(words: Sequence[str], place: Path) -> Callable[[], object]:
    """What a sweep's own command does, from a folder."""

    def work() -> None:
        os.chdir(place)
        processes.subprocess = SimpleNamespace(Popen=ForkedPopen, DEVNULL=-3, STDOUT=-2)  # type: ignore[assignment]
        sys.exit(entered(train.__name__, words))

    return work


def children_of(pid: int) -> list[int]:
    """The processes that one has started and that run still."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(stat.parent.name))
    return found


def is_there(pid: int) -> bool:
    """Whether a process runs still; one that waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
