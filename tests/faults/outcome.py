"""The final content of a root without times and logs, for comparisons, and files that must not remain in it."""

import fcntl
import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np

from ldbench.io.files import OUTPUT_MARKER
from ldbench.results.figures import read_logs

OF_TIME = ("created", "seconds", "environment")


def of(root: Path, *, without: Sequence[str] = OF_TIME) -> dict[str, object]:
    """The content of every file, by its path: numbers and pictures to the last bit.

    Of checkpoints the names only, of JSON not some keys.
    """
    found = {str(path.relative_to(root)): content(path, without) for path in files(root)}
    for run in sorted(root.glob("runs/*/log")):
        found[str(run.relative_to(root))] = read_logs(sorted(run.glob("version_*/metrics.csv"), key=version_of))
    return found


def files(root: Path) -> list[Path]:
    """What counts of a root: all but logs, locks, markers and the words of processes."""
    paths = (
        path for path in sorted(root.rglob("*")) if path.is_symlink() or not path.is_dir() or not any(path.iterdir())
    )
    return [
        path
        for path in paths
        if "log" not in path.relative_to(root).parts and not is_lock_or_marker(path) and "sweeps" not in path.parts
    ]


def names(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in files(root)}


def is_lock_or_marker(path: Path) -> bool:
    """Whether a file guards or marks a folder, and holds nothing of what was made."""
    return path.name == OUTPUT_MARKER or (path.name.startswith(".") and path.name.endswith(".lock"))


def version_of(log: Path) -> int:
    return int(log.parent.name.removeprefix("version_"))


def content(path: Path, without: Sequence[str]) -> object:
    """What one path holds."""
    if path.is_symlink():
        return str(path.readlink())
    if path.is_dir():
        return "nothing"
    if path.suffix == ".ckpt":
        return "a checkpoint"
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: sha256(arrays[name].tobytes()).hexdigest() for name in arrays}
    if path.suffix == ".json":
        return {key: value for key, value in json.loads(path.read_text()).items() if key not in without}
    return sha256(path.read_bytes()).hexdigest()


def differing(ours: dict[str, object], theirs: dict[str, object]) -> list[str]:
    """The paths that only one of two roots has, or that hold something else."""
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))


def held_locks(root: Path) -> list[Path]:
    """The locks that some process holds."""
    held = []
    for path in filter(is_lock_or_marker, root.rglob(".*.lock")):
        with path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(path)
    return held
