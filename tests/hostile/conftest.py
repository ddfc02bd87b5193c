"""What tests of hostile input share: a trap that tells whether anything ran, and what makes an answer a clear one.

`LDBENCH_HOSTILE=table python -m pytest tests/hostile -n0` prints every case with what is said.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TRAPS = ("LDBENCH_TRAP", "touch")


@pytest.fixture(autouse=True)
def trap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file that a payload would make; after each test it must not be there."""
    mark = tmp_path_factory.mktemp("trap") / "sprung"
    yield mark
    assert not mark.exists(), "code of a stranger ran"


@pytest.fixture
def refused(record_property) -> Callable[..., str]:
    """Calls something that must be refused, by ValueError or OSError, and returns what is said: one that names the file and ends as a sentence."""

    def call(action: Callable[[], object], *told: str | Path) -> str:
        with pytest.raises((ValueError, OSError)) as answer:
            action()
        said = str(answer.value)
        record_property("said", said)
        assert type(answer.value) in (ValueError, FileNotFoundError), (
            f"{type(answer.value).__name__} is of somebody else: {said}"
        )
        for part in told:
            assert str(part) in said
        assert len(said) < 1200
        assert said.rstrip().endswith((".", "?")), said
        assert said.replace("\n", "").isprintable()
        return said

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
    for nodeid, said in rows:
        door, _, case = nodeid.partition("hostile/")[2].partition("::")
        text = " ".join(str(said.get("said", "left out, and said so in the log")).split())
        terminalreporter.write_line(
            f"| {door.removeprefix('test_').removesuffix('.py')} | {case.partition('[')[2].rstrip(']') or case} | {text[:200]} |"
        )
    terminalreporter.write_line(f"{len(rows)} cases")
