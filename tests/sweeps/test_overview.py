"""The progress and the summary that a sweep prints."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from ldbench.sweeps.overview import Overview, format_duration, last_line
from ldbench.sweeps.points import Point
from ldbench.sweeps.schedule import RUNNING, Schedule


def build(schedule: Schedule, *, terminal: bool, height: int = 40) -> tuple[Overview, io.StringIO]:
    file = io.StringIO()
    return Overview(schedule, Console(file=file, force_terminal=terminal, width=100, height=height)), file


def grid(count: int = 3) -> Schedule:
    return Schedule.of([Point([], f"seed={index}") for index in range(count)])


def test_without_a_terminal_every_change_is_a_plain_line(tmp_path: Path) -> None:
    schedule = grid()
    overview, file = build(schedule, terminal=False)
    with overview:
        task = schedule.next()
        task.state = RUNNING
        overview.on_start(task, tmp_path / "0.log")
        task.seconds = 12.2
        schedule.end(task, "no [bold]disk")
        overview.on_end(task)
        overview.on_tick()
    assert (
        file.getvalue()
        == f"started seed=0  ({tmp_path / '0.log'})\nfailed  seed=0 in 12 s: no [bold]disk  [2 waiting, 1 failed]\n"
    )


def test_in_a_terminal_a_table_shows_running_tasks_with_their_last_line(tmp_path: Path) -> None:
    schedule = grid()
    overview, file = build(schedule, terminal=True)
    (tmp_path / "0.log").write_text("step 10\rstep 20\n\n")
    task = schedule.next()
    task.state = RUNNING
    overview.on_start(task, tmp_path / "0.log")
    with overview:
        overview.on_tick()
    output = file.getvalue()
    assert "step 20" in output
    assert "step 10" not in output
    assert "1 running, 2 waiting" in output
    assert "started" not in output


def test_a_table_with_more_rows_than_the_terminal_keeps_running_and_failed_tasks() -> None:
    schedule = grid(50)
    overview, file = build(schedule, terminal=True, height=12)
    schedule.end(schedule.next(), "lost")
    overview.console.print(overview.table())
    assert "seed=0" in file.getvalue()
    assert "seed=1" not in file.getvalue()
    assert "49 waiting, 1 failed" in file.getvalue()


def test_the_summary_lists_every_task_with_its_reason_and_its_log(tmp_path: Path) -> None:
    schedule = grid(2)
    overview, file = build(schedule, terminal=False)
    for reason in (None, "no disk"):
        task = schedule.next()
        overview.on_start(task, Path(f"{task.name}.log"))
        task.seconds = 3
        schedule.end(task, reason)
    overview.print_summary()
    (done,) = [line for line in file.getvalue().splitlines() if line.startswith(" seed=0")]
    (failed,) = [line for line in file.getvalue().splitlines() if line.startswith(" seed=1")]
    assert done.split() == ["seed=0", "done", "3", "s"]
    assert failed.split() == ["seed=1", "failed", "3", "s", "no", "disk", "1.log"]
    assert "1 done, 1 failed, in 0 s" in file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (3599, "59 min 59 s"), (7500, "2 h 05 min")],
)
def test_durations_are_short(seconds: float, expected: str) -> None:
    assert format_duration(seconds) == expected


def test_a_silent_log_has_no_last_line(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("\n")
    assert last_line(tmp_path / "log") == ""
