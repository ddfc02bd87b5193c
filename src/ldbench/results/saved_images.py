"""Images that jobs saved beside their records: originals and reconstructions by name, samples by index.

Files of unknown origin: a link is not followed, and what is no PNG of a usual size is an error that names it.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldbench.io.files import read_json
from ldbench.results.records import Record, path_of

if TYPE_CHECKING:
    from numpy import ndarray

TABLE = "images.csv"  # the last file that a reconstruction writes
NOISE = "noise.json"  # what the noise of the samples was drawn from
LARGEST = 100_000_000  # bytes of an image, and its pixels


@dataclass(frozen=True)
class SavedReconstructions:
    """The originals and reconstructions of a record."""

    folder: Path

    @cached_property
    def names(self) -> list[str]:
        """The names of the images, sorted."""
        root = self.folder / "originals"
        found = []
        for path, folders, files in os.walk(root):
            folders[:] = [name for name in folders if not os.path.islink(os.path.join(path, name))]
            found += [
                os.path.relpath(os.path.join(path, name), root).removesuffix(".png")
                for name in files
                if name.endswith(".png")
            ]
        return sorted(found)

    def original(self, name: str) -> "ndarray":  # (H, W, 3) uint8
        """An original. Raises ValueError if it cannot be read."""
        return read_image(self.folder / "originals" / f"{name}.png")

    def recon(self, name: str) -> "ndarray":  # (H, W, 3) uint8
        """A reconstruction. Raises ValueError if it cannot be read."""
        return read_image(self.folder / "reconstructions" / f"{name}.png")


@dataclass(frozen=True)
class SavedSamples:
    """The samples of a record."""

    folder: Path

    @cached_property
    def classes(self) -> list[str]:
        """The names of the classes' folders, sorted."""
        with os.scandir(self.folder / "samples") as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))

    def find(self, index: int) -> str | None:
        """The class of a sample; None if there is no sample of this index."""
        return next((name for name in self.classes if self.path(index, name).is_file()), None)

    def path(self, index: int, name: str) -> Path:
        """The file of a sample of a class."""
        return self.folder / "samples" / name / f"{index:06d}.png"

    def sample(self, index: int, name: str) -> "ndarray":  # (H, W, 3) uint8
        """A sample of a class. Raises ValueError if it cannot be read."""
        return read_image(self.path(index, name))

    @cached_property
    def noise(self) -> Mapping[str, Any] | None:
        """What the noise of an index was drawn from, `seed`, `num_tokens` and `channels`: where these are equal, so is
        the noise. None in the folder of an older record.
        """
        path = self.folder / NOISE
        content = read_json(path) if path.is_file() and not path.is_symlink() else None
        keys = {"seed", "num_tokens", "channels"}
        if content is not None and not (isinstance(content, dict) and content.keys() == keys):
            raise ValueError(f"{path} must hold {', '.join(sorted(keys))}; got {json.dumps(content)[:80]}.")
        return content


def saved_reconstructions(folder: Path, record: Record) -> SavedReconstructions | None:
    """The images that a record of `reconstruct` saved, all of them; None if it did not."""
    found = folder_of(folder, record)
    complete = record.job == "reconstruct" and (found / TABLE).is_file()
    return SavedReconstructions(found) if complete and are_folders(found, "originals", "reconstructions") else None


def saved_samples(folder: Path, record: Record) -> SavedSamples | None:
    """The images that a record of `generate` saved; None if it did not."""
    found = folder_of(folder, record)
    return SavedSamples(found) if record.job == "generate" and are_folders(found, "samples") else None


def folder_of(folder: Path, record: Record) -> Path:
    """The folder beside a record."""
    return path_of(folder, record.job, record.id).with_suffix("")


def are_folders(folder: Path, *names: str) -> bool:
    """Whether a folder has some folders; none is a link."""
    paths = [folder, *(folder / name for name in names)]
    return all(path.is_dir() and not path.is_symlink() for path in paths)


def read_image(path: Path) -> "ndarray":  # (H, W, 3) uint8
    """The pixels of a PNG. Raises ValueError, naming the file, if it cannot be read."""
    import numpy as np
    from PIL import Image

    try:
        if path.is_symlink() or not path.is_file():
            raise ValueError("it is not a file")
        if (size := path.stat().st_size) > LARGEST:
            raise ValueError(f"it has {size} bytes, and an image has at most {LARGEST}")
        with Image.open(path, formats=["PNG"]) as image:
            if image.width * image.height > LARGEST:
                raise ValueError(f"it has {image.width} x {image.height} px")
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image ({error}). Measure again with force=true.") from error
