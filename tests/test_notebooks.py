"""Notebooks are stored clean, and run on what a small measurement leaves."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nbclient.exceptions import CellExecutionError
from omegaconf import DictConfig

import ldbench
from ldbench.pipeline import pipeline
from tests.running_notebooks import FOLDER, run_notebook

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs_and_stands_in_the_list(path: Path) -> None:
    cells = json.loads(path.read_text())["cells"]
    assert cells[0]["cell_type"] == "markdown"
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]
    assert f"`{path.name}`" in (FOLDER / "README.md").read_text()


def install_cell(path: Path) -> str:
    """The first code of a notebook, which installs the package."""
    return next(
        "".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"
    )


def test_every_notebook_installs_the_package_in_the_same_way() -> None:
    (cell,) = {install_cell(path) for path in NOTEBOOKS}
    before = dict(os.environ)
    exec(cell, {})  # here it is installed, so that nothing happens
    assert dict(os.environ) == before


@pytest.mark.slow
def test_the_first_cell_installs_a_wheel_on_a_machine_without_the_package(tmp_path: Path) -> None:
    """In an environment with all other packages, so that nothing is downloaded."""
    site = tmp_path / "site"
    site.mkdir()
    for path in Path(torch.__file__).parents[1].iterdir():
        if "ldbench" not in path.name:
            (site / path.name).symlink_to(path)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=FOLDER.parent, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"PYTHONPATH": str(site), "LDBENCH_INSTALL": str(wheel), "PIP_NO_INDEX": "1"}
    code = f"{install_cell(NOTEBOOKS[0])}\nimport ldbench\nprint(ldbench.__file__)\n"
    command = [str(tmp_path / "venv" / "bin" / "python"), "-c", code]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(tmp_path / "venv")


@pytest.fixture
def measured(small_overrides: list[str], tmp_path: Path) -> Callable[..., Path]:
    """Runs a job on a tiny VMAE and returns the root of what it leaves."""

    def measure(*overrides: str) -> Path:
        cfg: DictConfig = ldbench.compose("run", [*small_overrides, f"paths.root={tmp_path}", *overrides])
        pipeline.run(cfg)
        return tmp_path

    return measure


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides", [["job.covariance=full", "job.dim=4"], ["job.points=token", "job.dim=3"]], ids=["image", "token"]
)
def test_the_mixtures_of_a_tiny_tokenizer_are_drawn(measured: Callable[..., Path], overrides: list[str]) -> None:
    root = measured("job=gmm", "job.min_variance=0", "job.components=[5,10]", "job.per_class=false", *overrides)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    shown = run_notebook("gmm_fit", FOLDER, LDBENCH_ROOT=root)
    assert len(shown.pictures) == 2
    assert "Lowest BIC, which penalizes parameters:" in shown.text
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()} == before  # it only reads


@pytest.mark.slow
def test_without_a_record_the_notebook_reports_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(CellExecutionError, match=r"Run: python -m ldbench.run job=gmm"):
        run_notebook("gmm_fit", FOLDER, LDBENCH_ROOT=tmp_path)
