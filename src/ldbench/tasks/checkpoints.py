"""Where a stage's checkpoints are kept, and which of them a run goes on from."""

import logging
from pathlib import Path

import torch

log = logging.getLogger(__name__)


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


def usable(path: Path) -> Path | None:
    """The newest checkpoint that can be read whole, or None where there is none; says so when one is cut short."""
    for candidate in (path, previous(path)):
        if not candidate.is_file():
            continue
        try:
            torch.load(candidate, map_location="cpu", weights_only=True)
        except Exception as error:  # a file that was cut short fails in many ways
            log.warning("The checkpoint %s cannot be read (%s). Taking the one before it.", candidate, type(error).__name__)
            continue
        return candidate
    return None
