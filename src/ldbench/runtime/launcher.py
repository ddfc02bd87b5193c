"""Starts the other ranks of a training on one machine, and ends all of them when one ends.

Why not torch's elastic agent (`torchrun --standalone`): the agent starts every rank at once as its child, while here
the command that the user typed is rank 0, validates its config, and starts the others when the first shared training
begins. When a rank dies the agent sends SIGTERM to the others, which do not handle it while they wait in a collective,
kills them up to 30 seconds later, and prints about a hundred lines; here all end within a second, with one sentence
that names the rank. When the agent is killed its workers keep running; here they end with rank 0.
"""

import atexit
import logging
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

log = logging.getLogger(__name__)

PARENT_VARIABLE = "LDBENCH_STARTED_BY"  # environment variable: the process id of rank 0
WATCHER = "launcher"  # the name of the watching thread
POLL_SECONDS = 0.2
GRACE_SECONDS = 3.0  # for a process to end by itself
TEARDOWN_SECONDS = 30.0  # for a rank to end by itself after a training: releasing devices takes long on busy machines
ADVICE = "The same command resumes from the last checkpoint."
INTERRUPTED = (130, -signal.SIGINT)  # exit codes after Ctrl-C, which reaches every rank

_started: dict[int, subprocess.Popen[bytes]] = {}  # by rank
_trained = threading.Event()  # set after a training: no rank waits in a collective for this process any more
_ending = threading.Event()  # set when this process ends and waits for the others


def exit_with_parent() -> None:
    """Makes this process end with rank 0, if rank 0 started it."""
    parent = os.environ.pop(PARENT_VARIABLE, None)  # processes that this one starts have another parent
    if parent is not None:
        threading.Thread(target=watch_parent, args=(int(parent),), name=WATCHER, daemon=True).start()


def spawn_ranks(num_processes: int) -> None:
    """Starts the other ranks, which run this command from its beginning, unless they are running already."""
    _trained.clear()
    if num_processes == 1 or process_info().world == num_processes:
        return
    variables = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(num_processes),
        "GROUP_RANK": "0",
    }
    os.environ.update(variables, RANK="0", LOCAL_RANK="0")
    leader_broadcast().connect()
    for rank in map(str, range(1, num_processes)):
        own = {"RANK": rank, "LOCAL_RANK": rank, PARENT_VARIABLE: str(os.getpid())}
        _started[int(rank)] = subprocess.Popen(command(), env=os.environ | own)
    threading.Thread(target=watch_ranks, name=WATCHER, daemon=True).start()
    atexit.register(wait_for_ranks)


def training_ended() -> None:
    """Says that a shared training is complete, so that at exit the other ranks get the time to end by themselves."""
    _trained.set()


def command() -> Sequence[str]:
    """The command line of this process."""
    if __main__.__spec__ is not None:
        return [sys.executable, "-m", __main__.__spec__.name, *sys.argv[1:]]
    if Path(sys.argv[0]).is_file():
        return [sys.executable, os.path.abspath(sys.argv[0]), *sys.argv[1:]]
    return [sys.executable, "-m", f"ldbench.{sys.argv[0].split()[-1]}", *sys.argv[1:]]  # `ldbench train ...`


def watch_ranks() -> None:
    """Ends this process and all ranks that it started when one of them fails, with a message that names the rank.

    Returns when this process ends, since ranks that it then kills did not fail.
    """
    while not _ending.wait(POLL_SECONDS):
        for rank, process in _started.items():
            code = process.poll()
            if code and not _ending.wait(GRACE_SECONDS if code in INTERRUPTED else 0):
                exit_all_ranks(
                    f"Process {rank} of this training (pid {process.pid}) {describe_exit(code)}, "
                    f"and the others were ended. {ADVICE}"
                )


def watch_parent(parent: int) -> None:
    """Ends this process when rank 0 is gone."""
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    exit_all_ranks(
        f"The first process of this training (pid {parent}) is gone, and process {process_info().rank} ends too. "
        f"{ADVICE}"
    )


def interrupt_ranks(signum: int, frame: Any) -> None:
    """The SIGTERM handler of a shared training: interrupts this process and those that it started, as Ctrl-C does."""
    for process in _started.values():
        process.terminate()
    raise KeyboardInterrupt


def exit_all_ranks(message: str) -> None:
    """Ends this process immediately, even while it waits in a collective, and those that it started."""
    for process in _started.values():
        process.kill()
    sys.stderr.write(f"\n{message}\n")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(1)


def await_watcher(error: RuntimeError) -> None:
    """If a collective failed because another rank is gone, waits for the watching thread to report it and exit."""
    lost = "gloo" in str(error) or isinstance(error, DistBackendError)
    if lost and any(thread.name == WATCHER for thread in threading.enumerate()):
        time.sleep(3 * GRACE_SECONDS)


def describe_exit(code: int) -> str:
    """How a process with this exit code ended."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"failed with exit status {code}"


def wait_for_ranks() -> None:
    """Waits for the other ranks at exit, and kills those that do not end; after a training, says what became of them.

    Without a complete training they wait for this process, which gives them little time.
    """
    _ending.set()
    beginning = time.monotonic()
    running = still_running(beginning + GRACE_SECONDS)
    if running and _trained.is_set():
        ranks = ", ".join(map(str, running))
        log.warning("This training is complete. Waiting up to %.0f s for process %s to end.", TEARDOWN_SECONDS, ranks)
        running = still_running(beginning + TEARDOWN_SECONDS)
    for rank, process in _started.items():
        if rank in running:
            process.kill()
        if _trained.is_set() and (rank in running or process.returncode):
            what = "did not end, and was killed" if rank in running else describe_exit(process.returncode)
            log.warning("Process %d (pid %d) %s after the training, which is complete.", rank, process.pid, what)


def still_running(deadline: float) -> list[int]:
    """The ranks that this process started and that have not ended at a time of the monotonic clock."""
    running = []
    for rank, process in _started.items():
        try:
            process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            running.append(rank)
    return running


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as free:
        free.bind(("", 0))
        return int(free.getsockname()[1])
