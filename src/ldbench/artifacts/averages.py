"""The further weight averages of a generator's artifact: `averages/<decay>.safetensors`, each with its checksum.

`weights.safetensors` holds the weights that are exported; no number of the artifact depends on the others.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldbench.io.files import file_digest

FOLDER = "averages"
KEY = "averages"  # of the manifest: decay -> sha256 of the file


def average_path(folder: Path, decay: float) -> Path:
    """The file of an average in an artifact's folder."""
    return folder / FOLDER / f"{decay}.safetensors"


def stored_averages(folder: Path, manifest: Mapping[str, Any]) -> dict[float, str]:
    """Decay -> sha256 of the averages that an artifact's manifest lists.

    Raises ValueError for a list that names anything but decays, since they become names of files.
    """
    listed = manifest.get(KEY, {})
    if not isinstance(listed, dict):
        raise ValueError(f"{folder} lists its averages as {listed!r}. Expected decays and checksums: copy it again.")
    found = {}
    for name, checksum in listed.items():
        decay = decay_of(name)
        if decay is None or not isinstance(checksum, str):
            raise ValueError(
                f"{folder} lists an average {name!r}. Expected a decay between 0 and 1 with a checksum: copy it again."
            )
        found[decay] = checksum
    return found


def decay_of(name: str) -> float | None:
    """The decay that a name in a manifest stands for; None for any other name."""
    try:
        decay = float(name)
    except ValueError:
        return None
    return decay if math.isfinite(decay) and 0 < decay < 1 and str(decay) == name else None


def verify_averages(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Raises ValueError unless the file of each average has the checksum of the manifest."""
    for decay, expected in stored_averages(folder, manifest).items():
        path = average_path(folder, decay)
        if not path.is_file() or file_digest(path) != expected:
            raise ValueError(
                f"{path} does not match its manifest: it was altered or truncated. "
                f"Remove {folder} and run the command that built it again, or copy it again."
            )
