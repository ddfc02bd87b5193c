"""Where a stage's checkpoints are kept, and which of them a run goes on from."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.plugins.io import TorchCheckpointIO

from ldbench.io.safe_load import read_pickle, write_pickle

log = logging.getLogger(__name__)

HELD = (
    "state_dict",
    "loops",
    "optimizer_states",
    "epoch",
    "global_step",
    "pytorch-lightning_version",
)  # what Lightning goes on from


def newest(folder: Path, stage: str) -> Path:
    """The place of a stage's newest checkpoint in a run folder."""
    return folder / "checkpoints" / f"{stage}.ckpt"


def previous(path: Path) -> Path:
    """The place of the checkpoint before the newest."""
    return path.with_suffix(".previous.ckpt")


def scratch(path: Path) -> Path:
    """The place where a checkpoint is written before it takes its own."""
    return path.with_suffix(".tmp")


class InPlace(TorchCheckpointIO):
    """Writes checkpoints where they belong. Lightning's own way leads through the machine's folder for temporary files, which may be small."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Writes one. Raises OSError, naming the file, where the disk does not take it."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_pickle(checkpoint, path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def rotate(written: Path, path: Path) -> None:
    """Makes a checkpoint that is written whole the newest one. Wherever this is broken off, one whole checkpoint stands: it itself, at least."""
    if path.is_file():
        path.replace(previous(path))
    written.replace(path)


def check(content: Any) -> None:
    """Raises ValueError for what is no checkpoint of a training."""
    missing = [key for key in HELD if key not in content] if isinstance(content, Mapping) else ["a mapping"]
    if missing:
        raise ValueError(f"It holds no {missing[0]}.")


def newest_readable(path: Path) -> Path | None:
    """The newest checkpoint that can be read whole, or None where there is none; says so when one is cut short."""
    there = [candidate for candidate in (path, previous(path), scratch(path)) if candidate.is_file()]
    for candidate in there:
        try:
            check(read_pickle(candidate))
        except ValueError as error:
            log.warning(
                "The checkpoint %s cannot be read (%s)%s",
                candidate,
                error,
                "" if candidate == there[-1] else " Taking the one before it.",
            )
            continue
        return candidate
    if there:
        log.warning("No checkpoint of stage %s can be read: it begins anew.", path.stem)
    return None
