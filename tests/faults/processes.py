"""Work in a forked process, killed after a time or as it touches a certain file."""

import io
import itertools
import logging
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ldbench.config.error_messages import error_message

FORK = multiprocessing.get_context("fork")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
# changes of files at which a process may be killed, besides opening one for writing
TOUCHES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.symlink", "os.truncate")
PATIENCE = 300.0  # seconds for what takes some


@dataclass(frozen=True)
class AtTime:
    """A kill so many seconds after the start."""

    seconds: float


@dataclass(frozen=True)
class AtFile:
    """A kill as a process is about to touch a file for the so-manieth time, or a moment later:
    then it is in the middle of it.
    """

    touch: str  # see `touched`
    count: int
    delay: float = 0.0  # seconds
    sent: signal.Signals = signal.SIGKILL


Kill = AtTime | AtFile


def touched(name: str, args: Sequence[object], root: Path) -> str | None:
    """What an audit event changes under a root, numbers and digests left out; None for any other event."""
    if name != "open" and name not in TOUCHES:
        return None
    if name == "open" and not (isinstance(args[2], int) and args[2] & WRITES):
        return None
    try:
        path = os.fsdecode(args[0])  # type: ignore[arg-type]
    except TypeError:  # a descriptor
        return None
    if os.path.isabs(path) and not path.startswith(f"{root}/"):
        return None
    return f"{name} " + re.sub(r"[0-9a-f]{8,}|\d+", "#", path.removeprefix(f"{root}/"))


def watch(root: Path, tell: Callable[[str], None]) -> None:
    """Has this process tell whatever it is about to change under a root."""

    def hook(name: str, args: tuple[object, ...]) -> None:
        if name in ("open", *TOUCHES) and (touch := touched(name, args, root)) is not None:
            tell(touch)

    sys.addaudithook(hook)


class Forked:
    """A process that does some work under a root; its words go to a log,
    its temporary files to `log`'s neighbour `tmp`.
    """

    def __init__(
        self, work: Callable[[], object], root: Path, log: Path, kill: AtFile | None = None, note: Path | None = None
    ):
        self.log = log
        self.reached, reached = FORK.Pipe(duplex=False)
        self.process = FORK.Process(target=body, args=(work, root, log, kill, reached, note))
        self.process.start()
        reached.close()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def is_alive(self) -> bool:
        return self.process.is_alive()

    def kill(self) -> bool:
        """Ends it by SIGKILL; whether it was there still."""
        if self.process.is_alive():
            os.kill(self.pid, signal.SIGKILL)
        return self.join() == -signal.SIGKILL

    def join(self) -> int:
        """Waits for its end; the exit status."""
        self.process.join(PATIENCE)
        assert self.process.exitcode is not None, f"It did not end in {PATIENCE:.0f} s: {self.said()[-2000:]}"
        return self.process.exitcode

    def said(self) -> str:
        return self.log.read_text() if self.log.is_file() else ""


def body(
    work: Callable[[], object], root: Path, log: Path, kill: AtFile | None, reached: object, note: Path | None
) -> None:
    """What a forked process does: its work, told as the command line tells it."""
    place = log.parent / "tmp"
    place.mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = str(place)
    words = log.open("a", buffering=1)
    for descriptor in (1, 2):
        os.dup2(words.fileno(), descriptor)
    sys.stdin, sys.stdout, sys.stderr = io.StringIO(), words, words
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=words, force=True)
    torch.set_num_threads(1)
    if kill is not None:
        counted = itertools.count(1)

        def strike(touch: str) -> None:
            if touch == kill.touch and next(counted) == kill.count:
                if not kill.delay:
                    os.kill(os.getpid(), kill.sent)
                reached.send(None)  # type: ignore[attr-defined]

        watch(root, strike)
    if note is not None:
        touches = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        watch(root, lambda touch: os.write(touches, f"{touch}\n".encode()))
    try:
        work()
    except (ValueError, ArithmeticError, OSError) as error:  # as `entry.launch` tells them
        print(error_message(error))
        sys.exit(2)
    except SystemExit:
        raise
    except BaseException:
        traceback.print_exc()
        sys.exit(1)


def run(
    work: Callable[[], object], root: Path, log: Path, *, kill: Kill | None = None, note: Path | None = None
) -> int:
    """Does work in a process of its own, killed where that is said; the exit status."""
    forked = Forked(work, root, log, kill if isinstance(kill, AtFile) else None, note)
    if isinstance(kill, AtTime):
        forked.process.join(kill.seconds)
        forked.kill()
    elif kill is not None:
        try:
            forked.reached.recv()
            time.sleep(kill.delay)
            forked.kill()
        except EOFError:  # it ended before, or by its own hand
            pass
    return forked.join()
