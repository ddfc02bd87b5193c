"""Files that can be trusted: JSON that is there whole or not at all, and sums of what is in them."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any


def digest(content: Any) -> str:
    """The sha256 of plain data, independent of the order of keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()).hexdigest()


def file_digest(path: str | Path) -> str:
    """The sha256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, content: Any) -> None:
    """Writes JSON in one move: the file is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    scratch.write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")
    scratch.replace(path)
