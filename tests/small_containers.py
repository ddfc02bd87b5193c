"""Small containers of images for tests: tar shards in WebDataset's naming, parquet files."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image

from ldbench.core.estimate import Estimate
from ldbench.data.original_images import OriginalImages
from ldbench.jobs.write_shards import WriteShards


def pixels(seed: int, height: int = 10, width: int = 12) -> np.ndarray:
    """Random pixels, (height, width, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(seed: int, kind: str = "PNG") -> bytes:
    """An image file."""
    content = io.BytesIO()
    Image.fromarray(pixels(seed)).save(content, format=kind)
    return content.getvalue()


def write_tar(path: Path, members: Mapping[str, bytes] | list[tuple[str, bytes]]) -> Path:
    """A tar of files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items() if isinstance(members, Mapping) else members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def samples(first: int, count: int, *, classes: int = 2) -> dict[str, bytes]:
    """The members of a shard: images with labels in turn."""
    found = {}
    for i in range(first, first + count):
        found |= {f"{i:08d}.png": encoded(i), f"{i:08d}.cls": str(i % classes).encode()}
    return found


def write_shards(folder: Path) -> Path:
    """Two training shards of four images, and a held-out one of two, of two classes."""
    write_tar(folder / "train-000.tar", samples(0, 4))
    write_tar(folder / "train-001.tar", samples(4, 4))
    write_tar(folder / "val-000.tar", samples(100, 2))
    return folder


class InMemory(OriginalImages):
    """Images of arrays, all of another size than the items."""

    def __init__(self, seeds: list[int], labels: list[int], *, image_size: int):
        self.seeds = seeds
        self.labels = torch.tensor(labels)
        self.image_size = image_size

    def original(self, index: int) -> Image.Image:
        return Image.fromarray(pixels(self.seeds[index]))


def images(*, image_size: int = 8, num_train: int = 9, num_test: int = 4) -> SimpleNamespace:
    """Data whose order is not that of the classes, with a class name that is no folder's name."""
    train = InMemory(list(range(num_train)), [(i * 2 + 1) % 3 for i in range(num_train)], image_size=image_size)
    test = InMemory(list(range(100, 100 + num_test)), [i % 3 for i in range(num_test)], image_size=image_size)
    return SimpleNamespace(
        name="made",
        image_size=image_size,
        num_classes=3,
        class_names=("zebra", "50 km/h", "ape"),
        label_safe_flips=False,
        fingerprint="0" * 64,
        train=train,
        test=test,
    )


def write(target: Path | str, kind: str, out: Path, *, data: Any = None, shard_size: int = 4) -> dict[str, Estimate]:
    """Writes images by the job."""
    settings: dict[str, Any] = {"format": kind, "shard_size": shard_size, "retries": 1, "timeout": 5}
    return WriteShards(data=data or images(), target=str(target), **settings).run(out)
