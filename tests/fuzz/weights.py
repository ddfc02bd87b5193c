"""Fuzzes the readers of pickles and safetensors: python tests/fuzz/weights.py -max_total_time=120."""

import sys
import tempfile
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ldbench", "torch._weights_only_unpickler", "zipfile"]):
    from ldbench.artifacts import weights

FOLDER = Path(tempfile.mkdtemp())
warnings.simplefilter("ignore")


def read(data: bytes) -> None:
    """One file: the first byte selects its kind."""
    path = FOLDER / ("w.safetensors" if data[:1] < b"\x40" else "w.pt")
    path.write_bytes(data[1:])
    try:
        weights.read_weights(path)
    except (ValueError, OSError) as error:
        if not str(error).replace("\n", "").isprintable():
            raise AssertionError(repr(error)) from error


if __name__ == "__main__":
    atheris.Setup(sys.argv, read)
    atheris.Fuzz()
