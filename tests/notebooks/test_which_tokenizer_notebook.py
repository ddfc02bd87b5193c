"""notebooks/which_tokenizer.ipynb: from a folder of images to numbers, a picture and sheets."""

import os
from pathlib import Path

import pytest
from PIL import Image
from tests.running_notebooks import run_notebook


@pytest.mark.slow
@pytest.mark.trains
@pytest.mark.parametrize("own", [True, False], ids=["folder", "digits"])
def test_it_measures_shows_and_compares(own: bool, tmp_path: Path) -> None:
    environment = {"LDBENCH_NUM_IMAGES": "20", "LDBENCH_ROOT": str(tmp_path / "root")}
    if own:
        for index in range(40):
            path = tmp_path / "images" / f"{'cat' if index % 2 else 'dog'}" / f"{index:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.frombytes("RGB", (24, 20), os.urandom(24 * 20 * 3)).resize((48, 40)).save(path)
        images = {"LDBENCH_IMAGES": str(tmp_path / "images"), "LDBENCH_SIZE": "16"}
        environment |= {**images, "LDBENCH_TOKENIZERS": "identity_p8,identity"}
    shown = run_notebook("which_tokenizer", tmp_path, timeout=300, **environment)
    assert "python -m ldbench.run job=reconstruct tokenizer=identity_p8" in shown.text
    assert "small_generator/heldout_loss" in shown.text.replace("\n", "")
    assert "Worse in both than another one of no more numbers:" in shown.text
    assert len(shown.pictures) == 2  # the plot, and a sheet
