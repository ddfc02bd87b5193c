"""The other processes of this machine that share a training: how they are started, and how all end when one does."""

import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.distributed import DistBackendError

import __main__
from ldbench.runtime.process_group import leader_broadcast, process_info

STARTED_BY = "LDBENCH_STARTED_BY"  # the environment's word for the process id of the first
WATCHING = "companions"  # the name of the thread
PAUSE = 0.2  # seconds between looks
PATIENCE = 3.0  # seconds that a process gets to end by itself
CURE = "The same command goes on from the last checkpoint."
INTERRUPTED = (130, -signal.SIGINT)  # Ctrl-C reaches all of them

_started: dict[int, subprocess.Popen] = {}  # by their ranks


def exit_with_parent() -> None:
    """Has this process end with the one that started it, if one did."""
    first = os.environ.pop(STARTED_BY, None)  # processes that this one starts have another parent
    if first is not None:
        threading.Thread(target=follow, args=(int(first),), name=WATCHING, daemon=True).start()


def spawn_ranks(num_processes: int) -> None:
    """Has as many processes share what follows: starts the others, which run this command from its beginning, unless somebody did."""
    if num_processes == 1 or process_info().world == num_processes:
        return
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(num_processes),
        "GROUP_RANK": "0",
    }
    os.environ.update(shared, RANK="0", LOCAL_RANK="0")
    leader_broadcast().open()
    for rank in map(str, range(1, num_processes)):
        own = {"RANK": rank, "LOCAL_RANK": rank, STARTED_BY: str(os.getpid())}
        _started[int(rank)] = subprocess.Popen(command(), env=os.environ | own)
    threading.Thread(target=watch, name=WATCHING, daemon=True).start()
    atexit.register(leave)


def command() -> Sequence[str]:
    """The command line of this process."""
    if __main__.__spec__ is not None:
        return [sys.executable, "-m", __main__.__spec__.name, *sys.argv[1:]]
    if Path(sys.argv[0]).is_file():
        return [sys.executable, os.path.abspath(sys.argv[0]), *sys.argv[1:]]
    return [sys.executable, "-m", f"ldbench.{sys.argv[0].split()[-1]}", *sys.argv[1:]]  # `ldbench train ...`


def watch() -> None:
    """Ends this process and all that it started when one of these fails, and says which."""
    while True:
        for rank, process in _started.items():
            code = process.poll()
            if code:
                time.sleep(PATIENCE if code in INTERRUPTED else 0)
                end(
                    f"Process {rank} of this training (pid {process.pid}) {ending(code)}, and the others were ended. {CURE}"
                )
        time.sleep(PAUSE)


def follow(first: int) -> None:
    """Ends this process when the one that started it is gone."""
    while os.getppid() == first:
        time.sleep(PAUSE)
    end(f"The first process of this training (pid {first}) is gone, and process {process_info().rank} ends too. {CURE}")


def interrupt_ranks(signum: int, frame: Any) -> None:
    """What SIGTERM does in a shared training: it interrupts this process and those that it started, as Ctrl-C does."""
    for process in _started.values():
        process.terminate()
    raise KeyboardInterrupt


def end(message: str) -> None:
    """Ends this process at once, wherever it waits, and those that it started."""
    for process in _started.values():
        process.kill()
    sys.stderr.write(f"\n{message}\n")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(1)


def await_end(error: RuntimeError) -> None:
    """Where an error says that another process is lost, gives whoever watches it the time to say how, and to end this one."""
    lost = "gloo" in str(error) or isinstance(error, DistBackendError)
    if lost and any(thread.name == WATCHING for thread in threading.enumerate()):
        time.sleep(3 * PATIENCE)


def ending(code: int) -> str:
    """How a process ended."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"failed with exit status {code}"


def leave() -> None:
    """Lets the others end; those that wait for this process cannot."""
    deadline = time.monotonic() + PATIENCE
    for process in _started.values():
        try:
            process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            process.kill()


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as found:
        found.bind(("", 0))
        return found.getsockname()[1]
