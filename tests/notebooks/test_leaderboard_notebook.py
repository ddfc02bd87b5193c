"""The notebook of the leaderboard: kept clean, and run from top to bottom on records of a matrix."""

import json
from pathlib import Path

import pytest
from tests import made_records
from tests.running_notebooks import run_notebook

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "leaderboard.ipynb"


def test_it_is_kept_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert not [cell for cell in code if cell["outputs"] or cell["execution_count"] is not None]


@pytest.mark.parametrize("filled", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_it_runs_from_top_to_bottom_with_and_without_cells(filled: bool, tmp_path: Path) -> None:
    records = made_records.fill(tmp_path / "records")
    if not filled:
        for path in records.glob("generate-*.json"):
            path.unlink()
    shown = run_notebook("leaderboard", tmp_path, LDBENCH_RECORDS=records)
    assert f"{len(list(records.glob('*.json')))} records in" in shown.text
    assert "digits: reconstruct, protocol digits" in shown.text
    assert ("No cell has both yet" in shown.text) is not filled
    assert len(shown.pictures) == (3 if filled else 2)
