"""Files that can be trusted: there whole or not at all, and sums of what is in them."""

import glob
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

LARGEST_JSON = 64_000_000  # bytes: the manifest of a store with a hundred thousand shards has half as many


def digest(content: Any) -> str:
    """The sha256 of plain data, independent of the order of keys."""
    return hashlib.sha256(
        json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    ).hexdigest()


def file_digest(path: str | Path) -> str:
    """The sha256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic_write(
    path: Path,
    *,
    apart: bool = False,  # whether the scratch file lies in a folder of its own: for who writes others beside it
) -> Iterator[Path]:
    """A scratch file beside a path, which takes its place in the end: the file is there whole or not at all, as long as the one before.

    What fails, as on a full disk, leaves no scratch, and an OSError that names the file. What killed processes left of the same file goes too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    place = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    scratch = place / path.name if apart else place
    try:
        with add_path_to_errors(path):
            if apart:
                place.mkdir(exist_ok=True)
            yield scratch
        scratch.replace(path)
    finally:
        discard(place)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        if not is_running(left.name.split(".")[-2]):
            discard(left)


def discard(place: Path) -> None:
    """Removes a scratch file, or a folder of some, that may be gone already."""
    if place.is_dir():
        shutil.rmtree(place, ignore_errors=True)
    else:
        place.unlink(missing_ok=True)


@contextmanager
def add_path_to_errors(path: Path) -> Iterator[None]:
    """Within it, an OSError that names no file names this one: a write to a full disk tells none."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def is_running(pid: str) -> bool:
    """Whether a process of this machine has this number."""
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def write_json(path: Path, content: Any) -> None:
    """Writes JSON in one move."""
    with atomic_write(path) as scratch:
        scratch.write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path, *, largest: int = LARGEST_JSON) -> Any:
    """The JSON in a file that anybody may have written: no NaN, no key twice, nothing endless.

    Raises ValueError, naming the file, for anything else, and OSError where it cannot be opened.
    """
    if not path.is_file():  # a pipe or a device would be read for ever
        raise ValueError(f"{path} is no file. Copy it again, or remove it.")
    size = path.stat().st_size
    if size > largest:
        raise ValueError(
            f"{path} has {size} bytes, and none of its kind has more than {largest}. Copy it again, or remove it."
        )
    try:
        return json.loads(path.read_bytes(), parse_constant=reject_constant, object_pairs_hook=reject_duplicate_keys)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON ({error}). Copy it again, or remove it.") from error


def reject_constant(constant: str) -> NoReturn:
    """Refuses NaN and Infinity, which are not JSON."""
    raise ValueError(f"{constant} is no number of JSON")


def reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are told once. Raises ValueError for another."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [key for key, _ in pairs]
        raise ValueError(f"a key stands twice: {ascii(next(key for key in names if names.count(key) > 1))[:60]}")
    return found
