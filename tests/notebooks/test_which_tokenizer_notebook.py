"""notebooks/which_tokenizer.ipynb: from a folder of images to numbers, a picture and sheets."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "which_tokenizer.ipynb"


@pytest.mark.slow
@pytest.mark.trains
@pytest.mark.parametrize("own", [True, False], ids=["folder", "digits"])
def test_it_measures_shows_and_compares(own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if own:
        for index in range(40):
            path = tmp_path / "images" / f"{'cat' if index % 2 else 'dog'}" / f"{index:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.frombytes("RGB", (24, 20), os.urandom(24 * 20 * 3)).resize((48, 40)).save(path)
        monkeypatch.setenv("LDBENCH_IMAGES", str(tmp_path / "images"))
        monkeypatch.setenv("LDBENCH_SIZE", "16")
        monkeypatch.setenv("LDBENCH_TOKENIZERS", "identity_p8,identity")
    monkeypatch.setenv("LDBENCH_NUM_IMAGES", "20")
    monkeypatch.setenv("LDBENCH_ROOT", str(tmp_path / "root"))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    text = "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs)
    assert "python -m ldbench.run job=reconstruct tokenizer=identity_p8" in text
    assert "small_generator/heldout_loss" in text.replace("\n", "")
    assert "Worse in both than another one:" in text
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2  # the plot, and a sheet
