"""Progress of long work: a bar on a terminal, a line in the log every quarter of a minute elsewhere."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 15.0


@contextmanager
def progress(doing: str, *, total: int, done: int) -> Iterator[Callable[[int], None]]:
    """A function that advances the bar by a number of images or other items, from `done` to `total`."""
    if sys.stderr.isatty():
        columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            yield partial(bar.advance, bar.add_task(doing, total=total, completed=done))
    else:
        yield Lines(doing, total, done).advance


class Lines:
    """Lines in the log that say how far something is; none if it ends within the first quarter of a minute."""

    def __init__(self, doing: str, total: int, done: int):
        self.doing = doing
        self.total = total
        self.done = self.first = done
        self.start = self.last_line = time.monotonic()

    def advance(self, items: int) -> None:
        """Counts items that are done."""
        self.done += items
        now = time.monotonic()
        if now - self.last_line >= SECONDS_BETWEEN_LINES and self.first < self.done < self.total:
            left = (self.total - self.done) * (now - self.start) / (self.done - self.first)
            log.info("  %s: %d of %d, %s left", self.doing, self.done, self.total, format_seconds(left))
            self.last_line = now


def format_seconds(seconds: float) -> str:
    """As people say it: 45 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    minutes, hours = whole // 60, whole // 3600
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"
