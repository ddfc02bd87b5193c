"""The processes of a sweep: a limited number at a time, each with its own log, and none that outlives the sweep."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ldbench.sweeps.schedule import RUNNING, STOPPED, WAITING, Schedule, SweepTask
from ldbench.sweeps.watch import NAME, PARENT

PATIENCE = 30.0  # seconds that interrupted processes have to end by themselves
HINT = "(HYDRA_FULL_ERROR=1"  # start of the line that follows an error message
MAX_MESSAGE_LINES = 3  # a longer block of output is not an error message


class Watcher(Protocol):
    """Is notified of the progress of tasks."""

    def on_start(self, task: SweepTask, log: Path) -> None:
        """A task's process was started."""

    def on_end(self, task: SweepTask) -> None:
        """A task is done or has failed."""

    def on_tick(self) -> None:
        """Called regularly while tasks run."""


@dataclass
class Running:
    """A task whose process runs."""

    task: SweepTask
    process: subprocess.Popen
    log: Path
    slot: int
    started: float


def run(
    schedule: Schedule,
    *,
    command: Callable[[SweepTask], Sequence[str]],
    folder: Path,
    jobs: int,
    devices: Sequence[int | str] | None,
    watcher: Watcher,
    pause: float = 0.2,
) -> None:
    """Runs all tasks, `jobs` at a time; their logs go to `folder`. An interruption ends them all and is re-raised."""
    folder.mkdir(parents=True, exist_ok=True)
    running: list[Running] = []
    previous_handler = signal.signal(signal.SIGTERM, interrupt)
    try:
        while running or schedule.count(WAITING):
            while len(running) < jobs and (task := schedule.next()) is not None:
                slot = min(set(range(jobs)) - {other.slot for other in running})
                running.append(start(task, command(task), folder / f"{task.name}.log", slot, devices))
                watcher.on_start(task, running[-1].log)
            for ended in [one for one in running if one.process.poll() is not None]:
                running.remove(ended)
                ended.task.seconds = time.monotonic() - ended.started
                reason = failure_reason(ended.process.returncode, ended.log)
                for task in [ended.task, *schedule.end(ended.task, reason)]:
                    watcher.on_end(task)
            watcher.on_tick()
            time.sleep(pause)
    finally:
        stop(running)
        for one in running:
            one.task.state, one.task.seconds = STOPPED, time.monotonic() - one.started
        signal.signal(signal.SIGTERM, previous_handler)


def interrupt(*_: object) -> None:
    """Handles SIGTERM like Ctrl-C."""
    raise KeyboardInterrupt


def start(
    task: SweepTask, command: Sequence[str], log: Path, slot: int, devices: Sequence[int | str] | None
) -> Running:
    """Starts a task's process in its own session: Ctrl-C reaches only the sweep, which then signals its processes."""
    pinned = {} if not devices else {"CUDA_VISIBLE_DEVICES": str(devices[slot % len(devices)])}
    environment = {**os.environ, **pinned, PARENT: str(os.getpid()), NAME: log.parent.name, "PYTHONUNBUFFERED": "1"}
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    task.state = RUNNING
    return Running(task, process, log, slot, time.monotonic())


def stop(running: Sequence[Running]) -> None:
    """Terminates processes with their children; kills those left after a while, or at a second interruption."""
    send_signal(running, signal.SIGTERM)  # a process that a shell starts in the background ignores SIGINT
    deadline = time.monotonic() + PATIENCE
    try:
        while any(one.process.poll() is None for one in running) and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        send_signal(running, signal.SIGKILL)
        for one in running:
            one.process.wait()


def send_signal(running: Sequence[Running], number: signal.Signals) -> None:
    """Sends a signal to the process groups that still exist."""
    for one in running:
        try:
            os.killpg(one.process.pid, number)
        except ProcessLookupError:
            continue


def failure_reason(status: int, log: Path) -> str | None:
    """Why a process failed, from the last lines of its log; None if it did not fail."""
    if status == 0:
        return None
    if status < 0:
        name = signal.Signals(-status).name
        return f"ended by {name}" + (", possibly because the system is out of memory" if name == "SIGKILL" else "")
    text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(encoding="utf-8", errors="replace")).replace("\r", "\n").rstrip()
    blocks = [block.strip() for block in re.split(r"\n\s*\n", text)]
    blocks = [block for block in blocks if block and not block.startswith(HINT)]
    lines = blocks[-1].splitlines() if blocks else []
    if not lines:
        return f"exit status {status}, without output"
    is_message = len(lines) <= MAX_MESSAGE_LINES and not any(line.startswith((" ", "Traceback")) for line in lines)
    return " ".join(lines) if is_message else lines[-1].strip()
