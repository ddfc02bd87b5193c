"""A sweep while it goes on and when it has ended, for people: a live table in a terminal, plain lines elsewhere."""

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
TAIL = 4096  # bytes of a log that are looked at for its last line


class Overview:
    """Shows the steps of a sweep as they change. A context manager: a live table stands while it is entered."""

    def __init__(self, waves: Schedule, console: Console):
        self.waves = waves
        self.console = console
        self.started = time.monotonic()
        self.began_at: dict[int, float] = {}
        self.logs: dict[int, Path] = {}
        self.drawn = 0.0
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

    def began(self, step: SweepTask, log: Path) -> None:
        """A step's process was started; its words go to `log`."""
        self.began_at[id(step)], self.logs[id(step)] = time.monotonic(), log
        self.say(f"begun   {step.label}  ({log})")

    def ended(self, step: SweepTask) -> None:
        """A step is done, or has failed."""
        taken = f" in {duration(step.seconds)}" if id(step) in self.began_at else ""
        self.say(f"{step.state:7} {step.label}{taken}{': ' + step.reason if step.reason else ''}  [{self.counts()}]")

    def passed(self) -> None:
        """Some time has passed."""
        if self.live and time.monotonic() - self.drawn > 1:
            self.drawn = time.monotonic()
            self.live.refresh()

    def say(self, line: str) -> None:
        """A plain line, where there is no live table."""
        if not self.live:
            self.console.print(Text(line), soft_wrap=True)

    def counts(self) -> str:
        """How many steps are in which state."""
        return ", ".join(
            f"{count} {state}"
            for state in (RUNNING, WAITING, DONE, FAILED, STOPPED)
            if (count := self.waves.count(state))
        )

    def table(self) -> Table:
        """All steps, or where the terminal is too low for them, those that run and that failed."""
        room = self.console.height - 6
        shown = (
            self.waves.steps
            if len(self.waves.steps) <= room
            else [s for s in self.waves.steps if s.state in (RUNNING, FAILED)][-room:]
        )
        drawn = headed(["", "state", "time", ""])
        for step in shown:
            drawn.add_row(
                Text(step.label),
                Text(step.state, style=STYLES[step.state]),
                self.time_of(step),
                Text(self.word_of(step), style="dim"),
            )
        drawn.caption = f"{self.counts()}, {duration(time.monotonic() - self.started)}"
        return drawn

    def time_of(self, step: SweepTask) -> str:
        """How long a step has taken so far."""
        if step.state == RUNNING:
            return duration(time.monotonic() - self.began_at[id(step)])
        return duration(step.seconds) if step.seconds else ""

    def word_of(self, step: SweepTask) -> str:
        """Why a step failed, or what it said last."""
        return last_line(self.logs[id(step)]) if step.state == RUNNING else step.reason

    def tell(self) -> None:
        """The end of it: every step with what became of it, and where the words of those that failed are."""
        drawn = headed(["", "state", "time", "reason", "log"])
        for step in self.waves.steps:
            log = self.logs.get(id(step))
            taken = duration(step.seconds) if step.seconds else ""
            told = Text(str(log)) if log is not None and step.state == FAILED else Text("")
            drawn.add_row(Text(step.label), Text(step.state, style=STYLES[step.state]), taken, Text(step.reason), told)
        self.console.print(drawn)
        self.console.print(Text(f"{self.counts()}, in {duration(time.monotonic() - self.started)}"))


def headed(columns: Sequence[str]) -> Table:
    """An empty table; long words go on in the next line."""
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="", caption_justify="left")
    for column in columns:
        drawn.add_column(column, overflow="fold")
    return drawn


def duration(seconds: float) -> str:
    """A time in words as short as it needs: 12 s, 3 min 05 s, 2 h 04 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60:02} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02} min"


def last_line(log: Path) -> str:
    """What a process said last, in 60 characters."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL))
        lines = [
            line.strip()
            for line in file.read().decode(errors="replace").replace("\r", "\n").splitlines()
            if line.strip()
        ]
    return lines[-1][:60] if lines else ""
