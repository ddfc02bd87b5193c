"""Where a stage's checkpoints are kept, and which of them a run goes on from."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldbench.core.pickles import read_pickle

log = logging.getLogger(__name__)

HELD = ("state_dict", "loops", "optimizer_states", "epoch", "global_step", "pytorch-lightning_version")  # what Lightning goes on from


def newest(folder: Path, stage: str) -> Path:
    """The place of a stage's newest checkpoint in a run folder."""
    return folder / "checkpoints" / f"{stage}.ckpt"


def previous(path: Path) -> Path:
    """The place of the checkpoint before the newest."""
    return path.with_suffix(".previous.ckpt")


def scratch(path: Path) -> Path:
    """The place where a checkpoint is written before it takes its own."""
    return path.with_suffix(".tmp")


def rotate(written: Path, path: Path) -> None:
    """Makes a checkpoint that is written whole the newest one. Wherever this is broken off, one whole checkpoint stands."""
    if path.is_file():
        path.replace(previous(path))
    written.replace(path)


def check(content: Any) -> None:
    """Raises ValueError for what is no checkpoint of a training."""
    missing = [key for key in HELD if key not in content] if isinstance(content, Mapping) else ["a mapping"]
    if missing:
        raise ValueError(f"It holds no {missing[0]}.")


def usable(path: Path) -> Path | None:
    """The newest checkpoint that can be read whole, or None where there is none; says so when one is cut short."""
    for candidate in (path, previous(path)):
        if not candidate.is_file():
            continue
        try:
            check(read_pickle(candidate))
        except ValueError as error:
            log.warning("The checkpoint %s cannot be read (%s) Taking the one before it, or beginning anew.", candidate, error)
            continue
        return candidate
    return None
