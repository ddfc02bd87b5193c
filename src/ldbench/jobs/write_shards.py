"""Job `write_shards`: the images of any data in tar shards, parquet files or a folder, in their order."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ldbench.core.estimate import Estimate
from ldbench.core.interfaces import ImageData, ImageSet
from ldbench.data.written import CLASSES, UNFINISHED, Written
from ldbench.io.files import digest, write_json
from ldbench.io.local_files import LocalFiles
from ldbench.io.remote import Missing, RemoteFiles, is_remote
from ldbench.jobs._image_containers import build_container, class_folders
from ldbench.runtime.progress import progress

log = logging.getLogger(__name__)

FORMATS = ("tar", "parquet", "folder")


class WriteShards:
    """Writes the training and the test images to `target`, a folder or an address, each as it is stored where the data
    store image files, and else as PNG of the original.

    Keys are positions, so that every format keeps the order; labels are kept, too. Files are written whole or not at
    all, and a rerun goes on with those that are missing. Raises ValueError for a target that holds anything else.
    """

    name: ClassVar[str] = "write_shards"
    revision: ClassVar[int] = 1
    requires: ClassVar[frozenset[str]] = frozenset()
    settings: ClassVar[tuple[str, ...]] = ("format", "shard_size")

    def __init__(self, *, data: ImageData, target: str, format: str, shard_size: int, retries: int, timeout: float):
        self.data = data
        self.target = target
        self.files = open_target(target, retries=retries, timeout=timeout)
        self.format = format
        self.shard_size = shard_size
        self.splits: Mapping[str, ImageSet] = {"train": data.train, "test": data.test}

    @staticmethod
    def check(settings: Mapping[str, Any]) -> None:
        """Raises ValueError for settings out of range."""
        if settings["format"] not in FORMATS:
            raise ValueError(f"job.format must be one of {', '.join(FORMATS)}, got {settings['format']!r}.")
        if not isinstance(settings["shard_size"], int) or settings["shard_size"] < 1:
            raise ValueError(f"job.shard_size must be a whole number of at least 1, got {settings['shard_size']!r}.")
        target = settings["target"]
        if not isinstance(target, str) or not target.strip():
            raise ValueError(f"job.target must be a folder or an address, got {target!r}.")
        if not is_remote(target) and resolve_folder(target).is_file():
            raise ValueError(f"job.target={target} is a file. Give a folder.")

    @staticmethod
    def output_files(settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The files without which a recorded measurement is repeated: a note of the target, and the target's own."""
        target = settings["target"]
        own = () if is_remote(target) else (str(resolve_folder(target) / CLASSES),)
        return (note_of(target), *own)

    def run(self, out: Path) -> dict[str, Estimate]:
        """The number of images that the target holds, by split."""
        counts = {split: len(images) for split, images in self.splits.items()}
        names = list(self.data.class_names)
        plan = digest([self.data.fingerprint, counts, names, self.format, self.shard_size])
        written = Written(names, class_folders(names), counts, plan)
        if not self.is_complete(plan):
            self.prepare(plan)
            self.write_parts()
            self.files.write(CLASSES, json.dumps(written.to_dict(), indent=1, ensure_ascii=False).encode())
        self.files.remove(UNFINISHED)
        write_json(out / note_of(self.target), {"images": counts})
        log.info("Wrote %d training and %d test images: %s", counts["train"], counts["test"], self.files.address)
        return {f"images/{split}": Estimate(float(count)) for split, count in counts.items()}

    def is_complete(self, plan: str) -> bool:
        """Whether the target holds these images. Raises ValueError where it holds others."""
        if not self.files.exists(CLASSES):
            return False
        where = f"{self.files.address}/{CLASSES}"
        try:
            found = Written.from_dict(json.loads(self.files.read_all(CLASSES)), where)
        except ValueError:
            found = None
        if found is None or found.plan != plan:
            raise ValueError(self.refusal())
        return True

    def prepare(self, plan: str) -> None:
        """Notes what is about to be written. Raises ValueError where the target holds anything else."""
        if isinstance(self.files, LocalFiles):
            for images in self.splits.values():
                root = getattr(images, "root", None)
                if root is not None and self.files.folder.is_relative_to(resolve_folder(root)):
                    raise ValueError(
                        f"job.target={self.target} is in data.root={root}: what is written would be data there. Choose "
                        "a folder elsewhere."
                    )
        if self.files.exists(UNFINISHED):
            if self.files.read_all(UNFINISHED) != plan.encode():
                raise ValueError(self.refusal())
            return
        if self.holds_anything():
            raise ValueError(self.refusal())
        self.files.write(UNFINISHED, plan.encode())

    def holds_anything(self) -> bool:
        """Whether there is anything in the target."""
        if isinstance(self.files, LocalFiles):
            return self.files.folder.is_dir() and any(self.files.folder.iterdir())
        try:
            return bool(self.files.list("*"))
        except Missing:
            return False

    def refusal(self) -> str:
        """The message about a target that holds anything else."""
        return (
            f"job.target={self.target} holds other files than these images with these settings. Choose an empty "
            "folder, or remove what is there."
        )

    def write_parts(self) -> None:
        """Writes the files that are missing."""
        container = build_container(self.format, self.data.class_names)
        total = sum(map(len, self.splits.values()))
        with progress("writing", total=total, done=0) as advance:
            for split, images in self.splits.items():
                starts = range(0, len(images), self.shard_size)
                for number, start in enumerate(starts):
                    part = range(start, min(start + self.shard_size, len(images)))
                    names = container.names(split, part, number, len(starts))
                    if names is None or not all(map(self.files.exists, names)):
                        for name, content in container.files(split, images, part, number, len(starts)):
                            if names is not None or not self.files.exists(name):
                                self.files.write(name, content)
                    advance(len(part))


def open_target(target: str, *, retries: int, timeout: float) -> LocalFiles | RemoteFiles:
    """The files of a folder or an address."""
    if is_remote(target):
        return RemoteFiles(target, cache=None, cache_bytes=0, retries=retries, timeout=timeout)
    return LocalFiles(resolve_folder(target))


def resolve_folder(folder: str) -> Path:
    """The absolute path of a folder in the config."""
    return Path(folder).expanduser().resolve()


def note_of(target: str) -> str:
    """The file in the output folder that says that a target was written."""
    return f"written-{digest(target if is_remote(target) else str(resolve_folder(target)))[:8]}.json"
