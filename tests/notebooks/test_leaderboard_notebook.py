"""The notebook of the leaderboard: kept clean, and run from top to bottom on records of a matrix."""

import json
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest
from tests import made_records

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "leaderboard.ipynb"


def test_it_is_kept_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert not [cell for cell in code if cell["outputs"] or cell["execution_count"] is not None]


@pytest.mark.parametrize("filled", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_it_runs_from_top_to_bottom_with_and_without_cells(
    filled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = made_records.fill(tmp_path / "records")
    if not filled:
        for path in records.glob("generate-*.json"):
            path.unlink()
    monkeypatch.setenv("LDBENCH_RECORDS", str(records))
    monkeypatch.setenv("PYTHONPATH", ":".join(filter(None, sys.path)))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs)
    assert f"{len(list(records.glob('*.json')))} records in" in text
    assert "digits: reconstruct, protocol digits" in text
    assert ("No cell has both yet" in text) is not filled
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == (3 if filled else 2)
