"""Atomic writes, checked reads, and sha256 digests of files."""

import glob
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

OUTPUT_MARKER = ".ldbench"  # in each folder of outputs: what lies below it is not data
LARGEST_JSON = 64_000_000  # bytes: twice the manifest of a store with a hundred thousand shards


def digest(content: Any) -> str:
    """The sha256 of plain data, independent of the order of keys."""
    return hashlib.sha256(
        json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    ).hexdigest()


def file_digest(path: str | Path) -> str:
    """The sha256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def mark_outputs(folder: Path) -> None:
    """Marks a folder of outputs that exists, so that nothing in it is taken for data."""
    marker = folder / OUTPUT_MARKER
    if folder.is_dir() and not marker.exists():
        with suppress(OSError):  # somebody else's folder, or a full disk: nothing is lost
            marker.write_text("ldbench writes to this folder and reads no data from it.\n", encoding="utf-8")


@contextmanager
def atomic_write(
    path: Path,
    *,
    own_folder: bool = False,  # whether the scratch file is in a folder of its own, for writers that create others
) -> Iterator[Path]:
    """A scratch file beside a path, which replaces it at the end: the file exists whole or not at all.

    An error, such as a full disk, leaves no scratch file and the file that existed before, and an OSError names the
    file. Scratch files of the same path that killed processes left behind are removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    file = scratch / path.name if own_folder else scratch
    try:
        with add_path_to_errors(path):
            if own_folder:
                scratch.mkdir(exist_ok=True)
            yield file
        file.replace(path)
    finally:
        remove_scratch(scratch)
    for abandoned in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        if not is_running(abandoned.name.split(".")[-2]):
            remove_scratch(abandoned)


def printable(name: str) -> str:
    """A file's name as UTF-8 can hold it: bytes that are no UTF-8 are escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace") if not is_unicode(name) else name


def is_unicode(name: str) -> bool:
    """Whether a file's name is text: Python holds bytes that are none as surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def remove_scratch(path: Path) -> None:
    """Removes a scratch file or folder, if it exists."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def add_path_to_errors(path: Path) -> Iterator[None]:
    """Within it, an OSError without a file name gets this one: a write to a full disk names no file."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def is_running(pid: str) -> bool:
    """Whether a process with this id runs on this machine."""
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def write_json(path: Path, content: Any) -> None:
    """Writes JSON atomically."""
    with atomic_write(path) as scratch:
        scratch.write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path, *, largest: int = LARGEST_JSON) -> Any:
    """The JSON in an untrusted file, which may hold no NaN and no duplicate keys.

    Raises ValueError, naming the file, for invalid or larger files, and OSError where it cannot be opened.
    """
    if not path.is_file():  # a pipe or a device may be endless
        raise ValueError(f"{path} is not a file. Copy it again, or remove it.")
    size = path.stat().st_size
    if size > largest:
        raise ValueError(f"{path} has {size} bytes; the limit is {largest}. Copy it again, or remove it.")
    return parse_json(path.read_bytes(), str(path))


def parse_json(content: bytes, where: str) -> Any:
    """Untrusted bytes as JSON, without NaN and duplicate keys. Raises ValueError, naming `where` they are from."""
    try:
        return json.loads(content, parse_constant=reject_constant, object_pairs_hook=reject_duplicate_keys)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not valid JSON ({error}). Copy it again, or remove it.") from error


def reject_constant(constant: str) -> NoReturn:
    """Raises ValueError for NaN and Infinity, which are not JSON."""
    raise ValueError(f"{constant} is not a JSON number")


def reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as a dict. Raises ValueError for a duplicate key."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [key for key, _ in pairs]
        raise ValueError(f"duplicate key: {ascii(next(key for key in names if names.count(key) > 1))[:60]}")
    return content
