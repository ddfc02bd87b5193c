"""Files that can be trusted: JSON that is there whole or not at all, and sums of what is in them."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NoReturn

LARGEST_JSON = 64_000_000  # bytes: the manifest of a store with a hundred thousand shards has half as many


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


def read_json(path: Path, *, largest: int = LARGEST_JSON) -> Any:
    """The JSON in a file that anybody may have written: no NaN, no key twice, nothing endless.

    Raises ValueError, naming the file, for anything else, and OSError where it cannot be opened.
    """
    if not path.is_file():  # a pipe or a device would be read for ever
        raise ValueError(f"{path} is no file. Copy it again, or remove it.")
    size = path.stat().st_size
    if size > largest:
        raise ValueError(f"{path} has {size} bytes, and none of its kind has more than {largest}. Copy it again, or remove it.")
    try:
        return json.loads(path.read_bytes(), parse_constant=no_constant, object_pairs_hook=without_twins)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON ({error}). Copy it again, or remove it.") from error


def no_constant(constant: str) -> NoReturn:
    """Refuses NaN and Infinity, which are not JSON."""
    raise ValueError(f"{constant} is no number of JSON")


def without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are told once. Raises ValueError for another."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [key for key, _ in pairs]
        raise ValueError(f"a key stands twice: {ascii(next(key for key in names if names.count(key) > 1))[:60]}")
    return found
