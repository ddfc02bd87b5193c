"""What a check returns, and the words it says it in."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """What a check saw, and what to do about it where something is to be done."""

    level: Literal["ok", "warning", "broken"]
    subject: str
    what: str
    cure: str = ""


def examine(subject: str, check: Callable[[], Sequence[Finding]]) -> Sequence[Finding]:
    """The findings of a check; one that fails itself is a finding too."""
    try:
        return check()
    except Exception as error:  # whatever is wrong with a machine, the other checks go on
        cure = "Set right what this names; if that is nothing of yours, report it as a bug of ldbench."
        if isinstance(error, ImportError):
            cure = "Install what is missing; in ldbench's folder: pip install -e ."
        return [Finding("broken", subject, f"could not be checked: {first_line(error)}", cure)]


def size(num_bytes: float) -> str:
    """Bytes as people say them."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if num_bytes >= unit:
            return f"{num_bytes / unit:.{1 if num_bytes < 10 * unit else 0}f} {name}"
    return f"{num_bytes / 1e3:.0f} kB"


def counted(number: int, noun: str) -> str:
    """'1 record', '2 records'."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def quoted(path: Path) -> str:
    """A path as a shell takes it."""
    return shlex.quote(str(path))


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__
