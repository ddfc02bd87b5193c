"""Finding: the result of a check; and how sizes, counts, paths and errors are formatted in it."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """What a check found, and what to do about it, if anything."""

    level: Literal["ok", "warning", "broken"]
    subject: str
    what: str
    cure: str = ""


def examine(subject: str, check: Callable[[], Sequence[Finding]]) -> Sequence[Finding]:
    """The findings of a check. A check that raises is a finding too."""
    try:
        return check()
    except Exception as error:  # the other checks run even then
        cure = "Fix what this names. If it is not in your code or data, report it as a bug of ldbench."
        if isinstance(error, ImportError):
            cure = "Install what is missing; in ldbench's folder: pip install -e ."
        return [Finding("broken", subject, f"could not be checked: {first_line(error)}", cure)]


def size(num_bytes: float) -> str:
    """A number of bytes with its unit."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if num_bytes >= unit:
            return f"{num_bytes / unit:.{1 if num_bytes < 10 * unit else 0}f} {name}"
    return f"{num_bytes / 1e3:.0f} kB"


def counted(number: int, noun: str) -> str:
    """'1 record', '2 records'."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def quoted(path: Path) -> str:
    """A path quoted for a shell."""
    return shlex.quote(str(path))


def first_line(error: BaseException) -> str:
    """An error's type and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
