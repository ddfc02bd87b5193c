"""What a sweep shows of itself."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from ldbench.sweeps.overview import Overview, duration, last_line
from ldbench.sweeps.points import Point
from ldbench.sweeps.schedule import RUNNING, Schedule


def shown(waves: Schedule, *, terminal: bool, height: int = 40) -> tuple[Overview, io.StringIO]:
    file = io.StringIO()
    return Overview(waves, Console(file=file, force_terminal=terminal, width=100, height=height)), file


def grid(count: int = 3) -> Schedule:
    return Schedule.of([Point([], f"seed={place}") for place in range(count)])


def test_without_a_terminal_every_change_is_a_plain_line(tmp_path: Path) -> None:
    waves = grid()
    overview, file = shown(waves, terminal=False)
    with overview:
        step = waves.next()
        step.state = RUNNING
        overview.began(step, tmp_path / "0.log")
        step.seconds = 12.2
        waves.end(step, "no [bold]disk")
        overview.ended(step)
        overview.passed()
    assert (
        file.getvalue()
        == f"begun   seed=0  ({tmp_path / '0.log'})\nfailed  seed=0 in 12 s: no [bold]disk  [2 waiting, 1 failed]\n"
    )


def test_in_a_terminal_a_table_tells_what_runs_and_what_it_said_last(tmp_path: Path) -> None:
    waves = grid()
    overview, file = shown(waves, terminal=True)
    (tmp_path / "0.log").write_text("step 10\rstep 20\n\n")
    step = waves.next()
    step.state = RUNNING
    overview.began(step, tmp_path / "0.log")
    with overview:
        overview.passed()
    told = file.getvalue()
    assert "step 20" in told
    assert "step 10" not in told
    assert "1 running, 2 waiting" in told
    assert "begun" not in told


def test_a_table_that_is_higher_than_the_terminal_keeps_what_runs() -> None:
    waves = grid(50)
    overview, file = shown(waves, terminal=True, height=12)
    waves.end(waves.next(), "lost")
    overview.console.print(overview.table())
    assert "seed=0" in file.getvalue()
    assert "seed=1" not in file.getvalue()
    assert "49 waiting, 1 failed" in file.getvalue()


def test_the_end_tells_every_step_with_its_reason_and_its_log(tmp_path: Path) -> None:
    waves = grid(2)
    overview, file = shown(waves, terminal=False)
    for reason in (None, "no disk"):
        step = waves.next()
        overview.began(step, Path(f"{step.name}.log"))
        step.seconds = 3
        waves.end(step, reason)
    overview.tell()
    (done,) = [line for line in file.getvalue().splitlines() if line.startswith(" seed=0")]
    (failed,) = [line for line in file.getvalue().splitlines() if line.startswith(" seed=1")]
    assert done.split() == ["seed=0", "done", "3", "s"]
    assert failed.split() == ["seed=1", "failed", "3", "s", "no", "disk", "1.log"]
    assert "1 done, 1 failed, in 0 s" in file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (3599, "59 min 59 s"), (7500, "2 h 05 min")],
)
def test_durations_are_short(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_a_silent_log_has_no_last_line(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("\n")
    assert last_line(tmp_path / "log") == ""
