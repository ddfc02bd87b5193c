"""Fuzzes the loader of artifacts, with manifests and configs: python tests/fuzz/store.py -max_total_time=120."""

import json
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ldbench", "json"]):
    from ldbench.artifacts import store
    from ldbench.io import safetensors_io

from torch import nn

FOLDER = Path(tempfile.mkdtemp()) / "a"
safetensors_io.write_tensors(nn.Linear(2, 2).state_dict(), FOLDER.parent / store.WEIGHTS)


def read(data: bytes) -> None:
    """One artifact: the first byte selects whether the others are its manifest or its config."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / store.WEIGHTS).write_bytes((FOLDER.parent / store.WEIGHTS).read_bytes())
    (FOLDER / store.CONFIG).write_bytes(data[1:])
    files = {name: store.file_digest(FOLDER / name) for name in (store.WEIGHTS, store.CONFIG)}
    fitting = json.dumps({"schema": 1, "digest": "01", "files": files}).encode()
    (FOLDER / store.MANIFEST).write_bytes(data[1:] if data[:1] < b"\x80" else fitting)
    try:
        store.load(FOLDER)
    except (ValueError, OSError) as error:
        if not str(error).replace("\n", "").isprintable():
            raise AssertionError(repr(error)) from error


if __name__ == "__main__":
    atheris.Setup(sys.argv, read)
    atheris.Fuzz()
