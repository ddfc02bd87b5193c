"""The progress and the summary of a sweep: a live table in a terminal, plain lines elsewhere."""

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ldbench.sweeps.schedule import DONE, FAILED, RUNNING, STOPPED, WAITING, Schedule, SweepTask

STYLES = {WAITING: "dim", RUNNING: "bold", DONE: "green", FAILED: "bold red", STOPPED: "yellow"}
TAIL = 4096  # bytes at the end of a log in which its last line is searched


class Overview:
    """Shows the tasks of a sweep as they change. A context manager: the live table is visible while it is entered."""

    def __init__(self, schedule: Schedule, console: Console):
        self.schedule = schedule
        self.console = console
        self.started = time.monotonic()
        self.start_times: dict[int, float] = {}
        self.logs: dict[int, Path] = {}
        self.refreshed = 0.0
        self.live = (
            Live(console=console, auto_refresh=False, transient=True, get_renderable=self.table)
            if console.is_terminal
            else None
        )

    def __enter__(self) -> "Overview":
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    def on_start(self, task: SweepTask, log: Path) -> None:
        """A task's process was started; its output goes to `log`."""
        self.start_times[id(task)], self.logs[id(task)] = time.monotonic(), log
        self.print_line(f"started {task.label}  ({log})")

    def on_end(self, task: SweepTask) -> None:
        """A task is done or has failed."""
        duration = f" in {format_duration(task.seconds)}" if id(task) in self.start_times else ""
        reason = f": {task.reason}" if task.reason else ""
        self.print_line(f"{task.state:7} {task.label}{duration}{reason}  [{self.counts()}]")

    def on_tick(self) -> None:
        """Refreshes the live table, at most once a second."""
        if self.live and time.monotonic() - self.refreshed > 1:
            self.refreshed = time.monotonic()
            self.live.refresh()

    def print_line(self, line: str) -> None:
        """Prints a plain line if there is no live table."""
        if not self.live:
            self.console.print(Text(line), soft_wrap=True)

    def counts(self) -> str:
        """The number of tasks in each state."""
        return ", ".join(
            f"{count} {state}"
            for state in (RUNNING, WAITING, DONE, FAILED, STOPPED)
            if (count := self.schedule.count(state))
        )

    def table(self) -> Table:
        """All tasks, or if the terminal has too few lines for them, those that run or failed."""
        num_rows = self.console.height - 6
        tasks = self.schedule.tasks
        if len(tasks) > num_rows:
            tasks = [task for task in tasks if task.state in (RUNNING, FAILED)][-num_rows:]
        table = build_table(["", "state", "time", ""])
        for task in tasks:
            table.add_row(
                Text(task.label),
                Text(task.state, style=STYLES[task.state]),
                self.elapsed(task),
                Text(self.status_line(task), style="dim"),
            )
        table.caption = f"{self.counts()}, {format_duration(time.monotonic() - self.started)}"
        return table

    def elapsed(self, task: SweepTask) -> str:
        """The time that a task has taken so far."""
        if task.state == RUNNING:
            return format_duration(time.monotonic() - self.start_times[id(task)])
        return format_duration(task.seconds) if task.seconds else ""

    def status_line(self, task: SweepTask) -> str:
        """Why a task failed, or the last line of its log while it runs."""
        return last_line(self.logs[id(task)]) if task.state == RUNNING else task.reason

    def print_summary(self) -> None:
        """Prints every task with its final state, and the log files of those that failed."""
        table = build_table(["", "state", "time", "reason", "log"])
        for task in self.schedule.tasks:
            log = self.logs.get(id(task))
            duration = format_duration(task.seconds) if task.seconds else ""
            log_file = Text(str(log)) if log is not None and task.state == FAILED else Text("")
            state = Text(task.state, style=STYLES[task.state])
            table.add_row(Text(task.label), state, duration, Text(task.reason), log_file)
        self.console.print(table)
        self.console.print(Text(f"{self.counts()}, in {format_duration(time.monotonic() - self.started)}"))


def build_table(columns: Sequence[str]) -> Table:
    """An empty table whose long cells wrap to the next line."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="", caption_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def format_duration(seconds: float) -> str:
    """A duration as short text: 12 s, 3 min 05 s, 2 h 04 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60:02} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02} min"


def last_line(log: Path) -> str:
    """The last line of a log that is not blank, in 60 characters."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL))
        text = file.read().decode(errors="replace").replace("\r", "\n")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:60] if lines else ""
