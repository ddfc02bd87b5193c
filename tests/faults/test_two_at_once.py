"""Two processes that need the same thing: one builds it, the other waits, or builds it where the first is killed."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.faults import outcome
from tests.faults.processes import PATIENCE, AtFile, Forked, run
from tests.faults.stages import Made


@dataclass(frozen=True)
class Rivals:
    """Two commands that want the same, and where the first is halted: in the middle of it."""

    stage: str
    halt: str  # a touch, see `processes.touched`
    waits: str  # what the second says of it
    first: tuple[str, ...] = ()
    second: tuple[str, ...] = ()
    other: str | None = None  # the stage of the second, where that is the next one


MADE = ("Trained in", "Measured", "Latents of")  # how a line begins that ends in the path of what was made

RIVALS = {
    "a tokenizer": Rivals("tokenizer", "os.mkdir runs/vmae-#/stages", "building vmae-"),
    "latents": Rivals(
        "encoding",
        "open artifacts/latents/vmae-digits-train-#/.plan.json.#.tmp",
        "encoding vmae-digits-train-",
        other="generator",
    ),
    "a generator": Rivals("generator", "os.mkdir runs/sit-#/weights", "building sit-"),
    "a record": Rivals("sampling", "os.mkdir records/generate-#/parts", "measuring sit-"),
    "a feature network": Rivals(
        "evaluation",
        "os.mkdir artifacts/networks/.building-tiny-#",
        "building tiny-",
        ("~jobs.generate",),
        ("~jobs.reconstruct",),
    ),
    "features of a reference": Rivals(
        "evaluation",
        "os.chmod artifacts/features/.#.safetensors.#.tmp/#.safetensors",
        "extracting the features of ",
        ("~jobs.generate",),
        ("~jobs.reconstruct",),
    ),
}


def wait_until(holds: Callable[[], bool], forked: Forked) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert forked.is_alive(), f"it ended first: {forked.said()}"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def is_halted(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes as Linux shows them")
@pytest.mark.parametrize("killed", [False, True], ids=["", "whose builder is killed"])
@pytest.mark.parametrize("rivals", RIVALS.values(), ids=RIVALS.keys())
def test_two_after_one_thing_make_it_once(rivals: Rivals, killed: bool, made: dict[str, Made], tmp_path: Path) -> None:
    one, other = made[rivals.stage].done, made[rivals.other or rivals.stage].done
    root = one.lay_out()
    first = Forked(
        one.work(rivals.first), root, tmp_path / "first" / "log", AtFile(rivals.halt, 1, sent=signal.SIGSTOP)
    )
    wait_until(lambda: is_halted(first.pid), first)
    second = Forked(other.work(rivals.second, root), root, tmp_path / "second" / "log")
    wait_until(lambda: f"Another process is {rivals.waits}" in second.said(), second)
    os.kill(first.pid, signal.SIGKILL if killed else signal.SIGCONT)
    assert first.join() == (-signal.SIGKILL if killed else 0), first.said()
    assert second.join() == 0, second.said()
    for made_whole in (one, other):  # what only one of them was asked for, or had not come to
        assert run(made_whole.work(root=root), root, tmp_path / "third" / "log") == 0
    without = (*outcome.OF_TIME, "config")  # which names all jobs of a command, and these were asked for some
    assert outcome.differing(outcome.of(other.after, without=without), outcome.of(root, without=without)) == []
    assert outcome.held_locks(root) == []
    if not killed:
        made_of = [
            line.rpartition("/")[2]
            for line in (first.said() + second.said()).splitlines()
            if line.startswith(MADE) and "already" not in line
        ]
        assert sorted(made_of) == sorted(set(made_of)), "nothing is made twice"
