"""notebooks/tour.ipynb: it shows the artifacts of one small cell, and names what to do if they are missing."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from omegaconf import DictConfig

from ldbench.pipeline import pipeline

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "tour.ipynb"
TINY = [
    "generator=sit",
    "generator.max_steps=3",
    "generator.backbone.width=12",
    "generator.backbone.depth=1",
    "generator.backbone.num_heads=2",
    "jobs.generate.num_samples=10",
]
TINY += ["generator.optimizer.warmup_steps=1", "sampler.num_steps=2"]


def executed(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[nbformat.NotebookNode]:
    """What the notebook shows of a root."""
    monkeypatch.setenv("LDBENCH_ROOT", os.fspath(root))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the kernel's own shows pictures
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(root)}}).execute()
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


@pytest.mark.slow
def test_it_walks_through_one_cell_and_only_reads(
    small: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pipeline.train(small(*TINY))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    outputs = executed(tmp_path, monkeypatch)
    text = "".join(output.get("text", "") for output in outputs if output.output_type == "stream")
    text += "".join(output.get("data", {}).get("text/plain", "") for output in outputs)
    assert f"{folder.name}: 0.0" in text
    assert "latents (12, 16, 4) log-variances True PSNR" in text
    assert "digits: reconstruct, protocol default" in text
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_it_says_what_to_do_where_there_is_no_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CellExecutionError, match=r"Make one: python -m ldbench\.train tokenizer=vmae generator=sit"):
        executed(tmp_path, monkeypatch)
