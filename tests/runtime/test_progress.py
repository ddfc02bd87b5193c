"""Progress: a bar on a terminal, lines in the log elsewhere, and neither for what is short."""

import io
import logging
import sys

import pytest

from ldbench.runtime import progress as module
from ldbench.runtime.progress import format_seconds, progress


class Clock:
    """A clock that advances by ten seconds with each reading."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        self.now += 10
        return self.now


def run(total, done=0, step=10):
    with progress("decoding", total=total, done=done) as advance:
        for _ in range(done, total, step):
            advance(step)


def test_elsewhere_lines_say_how_much_is_done_and_how_long_it_takes(monkeypatch, caplog):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(module, "time", Clock())
    with caplog.at_level(logging.INFO):
        run(60, done=10)
    assert [record.getMessage() for record in caplog.records] == [
        "  decoding: 30 of 60, 30 s left",  # two of five steps in 20 s
        "  decoding: 50 of 60, 10 s left",
    ]


def test_what_is_short_logs_nothing(monkeypatch, caplog):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with caplog.at_level(logging.INFO):
        run(30)
    assert not caplog.records


def test_a_terminal_shows_a_bar_and_no_lines(monkeypatch, caplog):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    with caplog.at_level(logging.INFO):
        run(30)
    assert "decoding" in terminal.getvalue()
    assert "30/30" in terminal.getvalue()
    assert not caplog.records


@pytest.mark.parametrize(
    ("seconds", "text"), [(45.2, "45 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (59.9, "1 min 0 s")]
)
def test_times_read_as_people_say_them(seconds, text):
    assert format_seconds(seconds) == text
