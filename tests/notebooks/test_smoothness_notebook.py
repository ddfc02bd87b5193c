"""notebooks/smoothness.ipynb: kept without outputs, and it runs on the records of small tokenizers."""

import shutil
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from omegaconf import DictConfig
from tests.running_notebooks import run_notebook

import ldbench
from ldbench.pipeline import pipeline

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "smoothness.ipynb"
FEW = [
    f"job.{override}"
    for override in (
        "num_images=8",
        "num_pairs=2",
        "num_points=3",
        "num_reference=20",
        "num_jacobians=2",
        "iterations=3",
        "num_probes=1",
    )
]


def test_it_is_kept_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)


@pytest.mark.slow
def test_it_lays_tokenizers_side_by_side_and_leaves_other_protocols_out(
    small: Callable[..., DictConfig], small_overrides: list[str], tmp_path: Path
) -> None:
    run = [
        f"paths.root={tmp_path}",
        "job=smoothness",
        "protocol.reconstruction=[psnr,mse]",
        "job.levels=[0.0,0.1]",
        *FEW,
    ]
    plain = ["tokenizer=identity", "protocol=default", "trainer.accelerator=cpu", "data.subset=0.1"]
    folders = [
        pipeline.run(ldbench.compose("run", [*words, *run]))
        for words in (small_overrides, plain, [*plain, "protocol.pixel_rule=truncate"])
    ]
    shown = run_notebook("smoothness", tmp_path)
    output = shown.text
    assert all(f"{folder.name}: digits, protocol default" in output for folder in folders[:2])
    assert "1 others were measured under other conditions and are left out." in output
    table = {line.split()[0]: line for line in output.splitlines() if line.strip()}
    assert {
        "mse/slope",
        "path/detour_pixels",
        "decoder/lipschitz",
        "encoder/gain",
        "equivariance/shift_latent",
        "spectrum/slope",
    } <= set(table)
    assert len(table["psnr/slope"].split("(")) == 3, "the identity's PSNR is finite too"
    assert len(shown.pictures) == 4  # two figures of curves, and the ways of two tokenizers
    for figures in (tmp_path / "records").glob("smoothness-*/"):
        shutil.rmtree(figures)
    assert run_notebook("smoothness", tmp_path).text.count("was not copied with its record") == 2


@pytest.mark.slow
def test_it_says_what_to_do_where_there_is_no_record(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    with pytest.raises(CellExecutionError, match=r"python -m ldbench\.run job=smoothness"):
        run_notebook("smoothness", tmp_path)
