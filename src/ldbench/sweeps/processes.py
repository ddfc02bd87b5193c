"""The processes of a sweep: so many at a time, each with a log of its own, and none that outlives it."""

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
HINT = "(HYDRA_FULL_ERROR=1"  # how the line begins that follows a mistake's sentence
LONGEST = 3  # lines of a sentence; more are no sentence


class Watcher(Protocol):
    """Who is told what becomes of steps."""

    def began(self, step: SweepTask, log: Path) -> None: ...

    def ended(self, step: SweepTask) -> None: ...

    def passed(self) -> None: ...


@dataclass
class Running:
    """A step under way."""

    step: SweepTask
    process: subprocess.Popen
    log: Path
    slot: int
    began: float


def run(
    waves: Schedule,
    *,
    command: Callable[[SweepTask], Sequence[str]],
    folder: Path,
    jobs: int,
    devices: Sequence[int | str] | None,
    watcher: Watcher,
    pause: float = 0.2,
) -> None:
    """Runs all steps, `jobs` at a time; `folder` takes their logs. An interruption ends them all, and goes on to the caller."""
    folder.mkdir(parents=True, exist_ok=True)
    under_way: list[Running] = []
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        while under_way or waves.count(WAITING):
            while len(under_way) < jobs and (step := waves.next()) is not None:
                slot = min(set(range(jobs)) - {other.slot for other in under_way})
                under_way.append(start(step, command(step), folder / f"{step.name}.log", slot, devices))
                watcher.began(step, under_way[-1].log)
            for one in [one for one in under_way if one.process.poll() is not None]:
                under_way.remove(one)
                one.step.seconds = time.monotonic() - one.began
                for step in [one.step, *waves.end(one.step, reason_of(one.process.returncode, one.log))]:
                    watcher.ended(step)
            watcher.passed()
            time.sleep(pause)
    finally:
        stop(under_way)
        for one in under_way:
            one.step.state, one.step.seconds = STOPPED, time.monotonic() - one.began
        signal.signal(signal.SIGTERM, before)


def interrupt(*_: object) -> None:
    """What a SIGTERM does: the same as Ctrl-C."""
    raise KeyboardInterrupt


def start(step: SweepTask, words: Sequence[str], log: Path, slot: int, devices: Sequence[int | str] | None) -> Running:
    """A step's process, in a session of its own: Ctrl-C reaches the sweep, and the sweep tells its processes."""
    pinned = {} if not devices else {"CUDA_VISIBLE_DEVICES": str(devices[slot % len(devices)])}
    environment = {**os.environ, **pinned, PARENT: str(os.getpid()), NAME: log.parent.name, "PYTHONUNBUFFERED": "1"}
    with log.open("w") as file:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    step.state = RUNNING
    return Running(step, process, log, slot, time.monotonic())


def stop(under_way: Sequence[Running]) -> None:
    """Ends processes and those that they have started; kills what has not ended after a while, or at a second interruption."""
    tell(under_way, signal.SIGTERM)  # SIGINT is not heard by what a shell started in the background
    deadline = time.monotonic() + PATIENCE
    try:
        while any(one.process.poll() is None for one in under_way) and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        tell(under_way, signal.SIGKILL)
        for one in under_way:
            one.process.wait()


def tell(under_way: Sequence[Running], message: signal.Signals) -> None:
    """Sends a signal to the processes that are there still, with those that they have started."""
    for one in under_way:
        try:
            os.killpg(one.process.pid, message)
        except ProcessLookupError:
            continue


def reason_of(status: int, log: Path) -> str | None:
    """Why a process failed, by what it said last; None for one that did not."""
    if status == 0:
        return None
    if status < 0:
        name = signal.Signals(-status).name
        return f"ended by {name}" + (", as by a system that is out of memory" if name == "SIGKILL" else "")
    said = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(errors="replace")).replace("\r", "\n").rstrip()
    blocks = [
        block.strip() for block in re.split(r"\n\s*\n", said) if block.strip() and not block.strip().startswith(HINT)
    ]
    lines = blocks[-1].splitlines() if blocks else []
    if not lines:
        return f"exit status {status}, without a word"
    is_sentence = len(lines) <= LONGEST and not any(line.startswith((" ", "Traceback")) for line in lines)
    return " ".join(lines) if is_sentence else lines[-1].strip()
