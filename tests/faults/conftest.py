"""What tests of faults share: the stages of a small cell as they end unbroken, and the table at the end.

`make test-faults` runs them; kills are drawn by seeds that the table names.
"""

from pathlib import Path

import pytest
import torch
from tests.faults.stages import STAGES, TINY, Made

COLUMNS = {
    "stage": "stage",
    "seed": "seed",
    "runs": "runs",
    "hits": "kills that hit",
    "within": "within the stage",
    "in_a_file": "of them at a file",
    "equal": "end states equal",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests here are slow ones, and are of faults."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.faults)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, small_overrides: list[str]) -> dict[str, Made]:
    """The stages by name, each laid out on those before it; one is made when it is asked for what it ended in."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("faults")
    for name, content in TINY.items():
        (folder / "conf" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "conf" / name).write_text(content)
    found: dict[str, Made] = {}
    for stage in STAGES:
        found[stage.name] = Made(
            stage, folder, found[list(found)[-1]] if found else None, small_overrides, folder / "conf"
        )
    for stage in found.values():
        stage.warm()
    return found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of all kills, and a line for each stage on a full disk."""
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.getreports(outcome)]
    told = [dict(report.user_properties) for report in reports if "faults/" in report.nodeid and report.when == "call"]
    rows = [row["tally"] for row in told if "tally" in row]
    if rows:
        terminalreporter.section("kills")
        cells = [list(COLUMNS.values()), *([told_cell(row, key) for key in COLUMNS] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for row in cells:
            terminalreporter.write_line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
    lines = [row["line"] for row in told if "line" in row]
    if lines:
        terminalreporter.section("full disks")
    for line in lines:
        terminalreporter.write_line(line)


def told_cell(row: dict[str, object], key: str) -> str:
    """A number of the table; of end states as many as there were chains of kills."""
    return f"{row['equal']} of {row['chains']}" if key == "equal" else str(row[key])
