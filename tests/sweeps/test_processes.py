"""The processes of a sweep: how many at a time, what becomes of them, and that none is left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ldbench.sweeps import processes
from ldbench.sweeps.points import Point, SweepNeeds
from ldbench.sweeps.schedule import DONE, FAILED, STOPPED, WAITING, Schedule, SweepTask


class Notes:
    """A watcher that writes down what it is told."""

    def __init__(self, at_each: Callable[[], None] = lambda: None) -> None:
        self.told: list[str] = []
        self.at_each = at_each

    def began(self, step: SweepTask, log: Path) -> None:
        self.told.append(f"begun {step.label}")

    def ended(self, step: SweepTask) -> None:
        self.told.append(f"{step.state} {step.label}")

    def passed(self) -> None:
        self.at_each()


def points(*labels: str, tokenizer: str | None = None) -> Schedule:
    return Schedule.of([Point([label], label, SweepNeeds(tokenizer, "vmae", latents=True)) for label in labels])


def run(
    waves: Schedule,
    script: str,
    folder: Path,
    *,
    jobs: int = 1,
    devices: Sequence[int] | None = None,
    notes: Notes | None = None,
) -> Notes:
    notes = notes or Notes()
    words = lambda step: [sys.executable, "-c", script, step.label, step.name]  # noqa: E731
    processes.run(waves, command=words, folder=folder, jobs=jobs, devices=devices, watcher=notes, pause=0.01)
    return notes


def test_each_has_a_log_of_its_own_and_ends_done(tmp_path: Path) -> None:
    waves = points("a", "b")
    notes = run(waves, "import sys; print('said by', sys.argv[1])", tmp_path / "logs")
    assert notes.told == ["begun a", "done a", "begun b", "done b"]
    assert [(tmp_path / "logs" / f"{name}.log").read_text() for name in ("0", "1")] == ["said by a\n", "said by b\n"]
    assert all(step.seconds > 0 for step in waves.steps)


def test_as_many_run_at_a_time_as_are_asked_for_and_each_takes_a_device_in_turn(tmp_path: Path) -> None:
    script = "import os, sys, time; print(os.environ['CUDA_VISIBLE_DEVICES']); time.sleep(0.3)"
    notes = run(points("a", "b", "c"), script, tmp_path, jobs=2, devices=[5, 7])
    assert notes.told[:2] == ["begun a", "begun b"]
    assert notes.told[2].startswith("done")
    seen = [(tmp_path / f"{place}.log").read_text().strip() for place in range(3)]
    assert seen[:2] == ["5", "7"]
    assert seen[2] in ("5", "7")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("import sys; print('step 3'); print('\\nThe disk is full.\\n\\n(HYDRA_FULL_ERROR=1 shows where.)', file=sys.stderr); sys.exit(2)",
         "The disk is full."),
        ("raise RuntimeError('no such kernel')", "RuntimeError: no such kernel"),
        ("import sys; sys.exit(3)", "exit status 3, without a word"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ended by SIGKILL, as by a system that is out of memory"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGABRT)", "ended by SIGABRT"),
        ("import sys; print('epoch 1\\repoch 2'); print('\\n\\x1b[31mNot\\x1b[0m\\nthis.', file=sys.stderr); sys.exit(1)", "Not this."),
    ],
)  # fmt: skip
def test_the_reason_is_what_it_said_last(script: str, reason: str, tmp_path: Path) -> None:
    waves = points("a")
    run(waves, f"import sys; sys.stdout.reconfigure(line_buffering=True)\n{script}", tmp_path)
    assert (waves.steps[0].state, waves.steps[0].reason) == (FAILED, reason)


def test_others_go_on_after_a_failure_and_points_without_their_tokenizer_never_begin(tmp_path: Path) -> None:
    waves = Schedule.of(
        [*(Point([], label, SweepNeeds("t", "vmae", latents=True)) for label in ("a", "b")), Point([], "c")]
    )
    notes = run(waves, "import sys; sys.exit('no data' if sys.argv[2].startswith('tokenizer') else 0)", tmp_path)
    assert notes.told == ["begun tokenizer vmae", "failed tokenizer vmae", "failed a", "failed b", "begun c", "done c"]
    assert [step.reason for step in waves.steps[:3]] == ["no data", *["its tokenizer failed: no data"] * 2]
    assert waves.steps[3].state == DONE


SLEEPER = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"


def is_there(pid: int) -> bool:
    """Whether a process runs still; one that waits to be collected does not."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def pid_in(path: Path, patience: float = 60) -> int:
    deadline = time.monotonic() + patience
    while not (path.is_file() and path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return int(path.read_text())


def gone(pid: int, patience: float = 60) -> bool:
    deadline = time.monotonic() + patience
    while is_there(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not is_there(pid)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes as Linux shows them")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_the_processes_and_goes_on_to_the_caller(sent: signal.Signals, tmp_path: Path) -> None:
    here = str(tmp_path / "pid")
    waves = points(here, "later")

    def interrupt() -> None:
        if (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text():
            signal.signal(
                signal.SIGINT, signal.default_int_handler
            )  # where tests run in several processes, these do not listen to Ctrl-C
            os.kill(os.getpid(), sent)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        run(waves, SLEEPER, tmp_path, notes=Notes(interrupt))
    assert gone(pid_in(tmp_path / "pid"))
    assert [step.state for step in waves.steps] == [STOPPED, WAITING]
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes as Linux shows them")
def test_a_process_ends_with_a_sweep_that_is_killed_and_takes_its_own_along(tmp_path: Path) -> None:
    child = (
        "import subprocess, sys, time; from ldbench.sweeps.watch import end_with_the_sweep; end_with_the_sweep(0.05)\n"
        f"subprocess.Popen([sys.executable, '-c', {SLEEPER!r}, sys.argv[1] + '-grandchild'])\n"
        f"{SLEEPER}"
    )
    sweep = (
        "import sys; from pathlib import Path; from unittest.mock import MagicMock; from ldbench.sweeps import processes; "
        "from ldbench.sweeps.points import Point; from ldbench.sweeps.schedule import Schedule\n"
        f"processes.run(Schedule.of([Point([], 'a')]), command=lambda _: [sys.executable, '-c', {child!r}, {str(tmp_path / 'pid')!r}], "
        f"folder=Path({str(tmp_path)!r}), jobs=1, devices=None, watcher=MagicMock())"
    )
    process = subprocess.Popen([sys.executable, "-c", sweep])
    pids = [pid_in(tmp_path / "pid"), pid_in(tmp_path / "pid-grandchild")]
    assert all(map(is_there, pids))
    process.kill()
    process.wait()
    assert all(map(gone, pids))
