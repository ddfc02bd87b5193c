"""notebooks/tour.ipynb: it shows the artifacts of one small cell, and names what to do if they are missing."""

from collections.abc import Callable
from pathlib import Path

import pytest
from nbclient.exceptions import CellExecutionError
from omegaconf import DictConfig
from tests.running_notebooks import run_notebook

from ldbench.pipeline import pipeline

TINY = [
    "generator=sit",
    "generator.max_steps=3",
    "generator.backbone.width=12",
    "generator.backbone.depth=1",
    "generator.backbone.num_heads=2",
    "jobs.generate.num_samples=10",
]
TINY += ["generator.optimizer.warmup_steps=1", "sampler.num_steps=2"]


@pytest.mark.slow
def test_it_walks_through_one_cell_and_only_reads(small: Callable[..., DictConfig], tmp_path: Path) -> None:
    folder = pipeline.train(small(*TINY))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    shown = run_notebook("tour", tmp_path, LDBENCH_ROOT=tmp_path)
    assert f"{folder.name}: 0.0" in shown.text
    assert "latents (12, 16, 4) log-variances True PSNR" in shown.text
    assert "digits: reconstruct, protocol default" in shown.text
    assert len(shown.pictures) == 3
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_it_says_what_to_do_where_there_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(CellExecutionError, match=r"Make one: python -m ldbench\.train tokenizer=vmae generator=sit"):
        run_notebook("tour", tmp_path, LDBENCH_ROOT=tmp_path)
