"""The processes of a sweep: how many at a time, how they end, and that none is left."""

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


class RecordingWatcher:
    """A watcher that records its notifications."""

    def __init__(self, at_each: Callable[[], None] = lambda: None) -> None:
        self.events: list[str] = []
        self.at_each = at_each

    def on_start(self, task: SweepTask, log: Path) -> None:
        self.events.append(f"started {task.label}")

    def on_end(self, task: SweepTask) -> None:
        self.events.append(f"{task.state} {task.label}")

    def on_tick(self) -> None:
        self.at_each()


def points(*labels: str, tokenizer: str | None = None) -> Schedule:
    return Schedule.of([Point([label], label, SweepNeeds(tokenizer, "vmae", latents=True)) for label in labels])


def run(
    schedule: Schedule,
    script: str,
    folder: Path,
    *,
    jobs: int = 1,
    devices: Sequence[int] | None = None,
    watcher: RecordingWatcher | None = None,
) -> RecordingWatcher:
    watcher = watcher or RecordingWatcher()
    command = lambda task: [sys.executable, "-c", script, task.label, task.name]  # noqa: E731
    processes.run(schedule, command=command, folder=folder, jobs=jobs, devices=devices, watcher=watcher, pause=0.01)
    return watcher


def test_each_task_has_its_own_log_and_ends_as_done(tmp_path: Path) -> None:
    schedule = points("a", "b")
    watcher = run(schedule, "import sys; print('written by', sys.argv[1])", tmp_path / "logs")
    assert watcher.events == ["started a", "done a", "started b", "done b"]
    assert [(tmp_path / "logs" / f"{name}.log").read_text() for name in ("0", "1")] == [
        "written by a\n",
        "written by b\n",
    ]
    assert all(task.seconds > 0 for task in schedule.tasks)


def test_jobs_limits_how_many_run_at_a_time_and_devices_are_taken_in_turn(tmp_path: Path) -> None:
    script = "import os, sys, time; print(os.environ['CUDA_VISIBLE_DEVICES']); time.sleep(0.3)"
    watcher = run(points("a", "b", "c"), script, tmp_path, jobs=2, devices=[5, 7])
    assert watcher.events[:2] == ["started a", "started b"]
    assert watcher.events[2].startswith("done")
    devices = [(tmp_path / f"{index}.log").read_text().strip() for index in range(3)]
    assert devices[:2] == ["5", "7"]
    assert devices[2] in ("5", "7")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("import sys; print('step 3')\n"
         "print('\\nThe disk is full.\\n\\n(HYDRA_FULL_ERROR=1 shows the traceback.)', file=sys.stderr); sys.exit(2)",
         "The disk is full."),
        ("raise RuntimeError('no such kernel')", "RuntimeError: no such kernel"),
        ("import sys; sys.exit(3)", "exit status 3, without output"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
         "ended by SIGKILL, possibly because the system is out of memory"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGABRT)", "ended by SIGABRT"),
        ("import sys; print('epoch 1\\repoch 2')\n"
         "print('\\n\\x1b[31mNot\\x1b[0m\\nthis.', file=sys.stderr); sys.exit(1)",
         "Not this."),
    ],
)  # fmt: skip
def test_the_reason_is_the_last_message_of_the_log(script: str, reason: str, tmp_path: Path) -> None:
    schedule = points("a")
    run(schedule, f"import sys; sys.stdout.reconfigure(line_buffering=True)\n{script}", tmp_path)
    assert (schedule.tasks[0].state, schedule.tasks[0].reason) == (FAILED, reason)


def test_others_continue_after_a_failure_and_points_without_their_tokenizer_never_start(tmp_path: Path) -> None:
    schedule = Schedule.of(
        [*(Point([], label, SweepNeeds("t", "vmae", latents=True)) for label in ("a", "b")), Point([], "c")]
    )
    watcher = run(schedule, "import sys; sys.exit('no data' if sys.argv[2].startswith('tokenizer') else 0)", tmp_path)
    assert watcher.events == [
        "started tokenizer vmae",
        "failed tokenizer vmae",
        "failed a",
        "failed b",
        "started c",
        "done c",
    ]
    assert [task.reason for task in schedule.tasks[:3]] == ["no data", *["its tokenizer failed: no data"] * 2]
    assert schedule.tasks[3].state == DONE


SLEEPER = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"


def is_running(pid: int) -> bool:
    """Whether a process still runs; a zombie does not."""
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
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not is_running(pid)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_the_processes_and_reaches_the_caller(sent: signal.Signals, tmp_path: Path) -> None:
    here = str(tmp_path / "pid")
    schedule = points(here, "later")

    def interrupt() -> None:
        if (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text():
            signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest-xdist's workers ignore SIGINT
            os.kill(os.getpid(), sent)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        run(schedule, SLEEPER, tmp_path, watcher=RecordingWatcher(interrupt))
    assert gone(pid_in(tmp_path / "pid"))
    assert [task.state for task in schedule.tasks] == [STOPPED, WAITING]
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads Linux's /proc")
def test_a_process_and_its_children_end_with_a_sweep_that_is_killed(tmp_path: Path) -> None:
    child = (
        "import subprocess, sys, time; from ldbench.sweeps.watch import exit_with_sweep; exit_with_sweep(0.05)\n"
        f"subprocess.Popen([sys.executable, '-c', {SLEEPER!r}, sys.argv[1] + '-grandchild'])\n"
        f"{SLEEPER}"
    )
    sweep = (
        "import sys; from pathlib import Path; from unittest.mock import MagicMock\n"
        "from ldbench.sweeps import processes\n"
        "from ldbench.sweeps.points import Point; from ldbench.sweeps.schedule import Schedule\n"
        f"command = [sys.executable, '-c', {child!r}, {str(tmp_path / 'pid')!r}]\n"
        "processes.run(Schedule.of([Point([], 'a')]), command=lambda _: command, "
        f"folder=Path({str(tmp_path)!r}), jobs=1, devices=None, watcher=MagicMock())"
    )
    process = subprocess.Popen([sys.executable, "-c", sweep])
    pids = [pid_in(tmp_path / "pid"), pid_in(tmp_path / "pid-grandchild")]
    assert all(map(is_running, pids))
    process.kill()
    process.wait()
    assert all(map(gone, pids))
