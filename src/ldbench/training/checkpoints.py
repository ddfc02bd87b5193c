"""The checkpoint files of a stage, and the one from which a run resumes."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.plugins.io import TorchCheckpointIO

from ldbench.io.safe_load import read_pickle, write_pickle

log = logging.getLogger(__name__)

# the keys from which Lightning resumes
REQUIRED_KEYS = ("state_dict", "loops", "optimizer_states", "epoch", "global_step", "pytorch-lightning_version")


def newest(folder: Path, stage: str) -> Path:
    """The path of a stage's newest checkpoint in a run folder."""
    return folder / "checkpoints" / f"{stage}.ckpt"


def previous(path: Path) -> Path:
    """The path of the checkpoint before the newest."""
    return path.with_suffix(".previous.ckpt")


def scratch(path: Path) -> Path:
    """The path at which a checkpoint is written before it becomes the newest."""
    return path.with_suffix(".tmp")


class DirectCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints directly to their path.

    Lightning's own writer uses the temporary folder, which may be too small.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Writes one. Raises OSError, naming the file, where it cannot be written."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_pickle(checkpoint, path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def rotate(written: Path, path: Path) -> None:
    """Makes a completely written checkpoint the newest one. If interrupted, at least one complete checkpoint exists."""
    if path.is_file():
        path.replace(previous(path))
    written.replace(path)


def validate_checkpoint(content: Any) -> None:
    """Raises ValueError unless the content is a training checkpoint."""
    if not isinstance(content, Mapping):
        raise ValueError("It holds no mapping.")
    missing = [key for key in REQUIRED_KEYS if key not in content]
    if missing:
        raise ValueError(f"It holds no {missing[0]}.")


def newest_readable(path: Path) -> Path | None:
    """The newest checkpoint that is complete, or None; logs a warning for each that cannot be read."""
    candidates = [candidate for candidate in (path, previous(path), scratch(path)) if candidate.is_file()]
    for candidate in candidates:
        try:
            validate_checkpoint(read_pickle(candidate))
        except ValueError as error:
            log.warning(
                "The checkpoint %s cannot be read (%s)%s",
                candidate,
                error,
                "" if candidate == candidates[-1] else " Using the one before it.",
            )
            continue
        return candidate
    if candidates:
        log.warning("No checkpoint of stage %s can be read: it restarts from its beginning.", path.stem)
    return None
