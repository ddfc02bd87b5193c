"""Fixtures of the tests of hostile input: a trap that shows whether code ran, and the checks of error messages.

`LDBENCH_HOSTILE=table python -m pytest tests/hostile -n0` prints every case with its error message.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TRAPS = ("LDBENCH_TRAP", "touch")


@pytest.fixture(autouse=True)
def trap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file that a payload would create; after each test it must not exist."""
    mark = tmp_path_factory.mktemp("trap") / "sprung"
    yield mark
    assert not mark.exists(), "untrusted code ran"


@pytest.fixture
def refused(record_property) -> Callable[..., str]:
    """Calls something that must raise ValueError or OSError, and returns the message: it names the file and is a
    sentence.
    """

    def call(action: Callable[[], object], *expected: str | Path) -> str:
        with pytest.raises((ValueError, OSError)) as error:
            action()
        message = str(error.value)
        record_property("message", message)
        assert type(error.value) in (ValueError, FileNotFoundError), f"not ours: {error.value!r}"
        for part in expected:
            assert str(part) in message
        assert len(message) < 1200
        assert message.rstrip().endswith((".", "?")), message
        assert message.replace("\n", "").isprintable()
        return message

    return call


def pytest_terminal_summary(terminalreporter) -> None:
    """The table of all cases."""
    if os.environ.get("LDBENCH_HOSTILE") != "table":
        return
    rows = [
        (report.nodeid, dict(report.user_properties))
        for report in terminalreporter.getreports("passed")
        if report.when == "call"
    ]
    for nodeid, properties in rows:
        file, _, test = nodeid.partition("hostile/")[2].partition("::")
        text = " ".join(str(properties.get("message", "skipped with a log message")).split())
        case = test.partition("[")[2].rstrip("]") or test
        terminalreporter.write_line(f"| {file.removeprefix('test_').removesuffix('.py')} | {case} | {text[:200]} |")
    terminalreporter.write_line(f"{len(rows)} cases")
