"""Runs a notebook in a kernel of its own, as a reader would."""

import base64
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"


@dataclass(frozen=True)
class Shown:
    """What a notebook shows: all its text, and its pictures as PNG."""

    text: str
    pictures: list[bytes]


def run_notebook(name: str, folder: Path, timeout: int = 120, **environment: str | os.PathLike[str]) -> Shown:
    """Runs a notebook in a folder, with these variables in its environment."""
    given: Mapping[str, str] = {
        **{
            name: value for name, value in os.environ.items() if name != "MPLBACKEND"
        },  # the kernel's own shows pictures
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        **{name: os.fspath(value) for name, value in environment.items()},
    }
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=timeout, kernel_name="python3", resources=place).execute(env=given)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return Shown(
        "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs),
        [base64.b64decode(data) for output in outputs if (data := output.get("data", {}).get("image/png"))],
    )
