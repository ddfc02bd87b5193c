"""Fuzzes the reader of records: python tests/fuzz/records.py -max_total_time=120."""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ldbench", "json"]):
    from ldbench.results import validation

FOLDER = Path(tempfile.mkdtemp())


def read(data: bytes) -> None:
    """One file."""
    path = FOLDER / "reconstruct-01.json"
    path.write_bytes(data)
    try:
        validation.read_validated(path)
    except (ValueError, OSError) as error:
        if not str(error).replace("\n", "").isprintable():
            raise AssertionError(repr(error)) from error


if __name__ == "__main__":
    atheris.Setup(sys.argv, read)
    atheris.Fuzz()
