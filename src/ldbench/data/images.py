"""Folders of images, one folder a class."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ldbench.core.pixels import from_uint8
from ldbench.data.subset import choose, stratified
from ldbench.data.transforms import center_crop, to_rgb

REVISION = 1  # raise when the images, their order or the split change

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
HELD_OUT = ("test", "val", "valid", "validation")
ONE_CLASS = "all"


class Folder:
    """Images below `root`, centre-cropped to `image_size`. Three layouts are known:

    - `root/train/<class>/...` beside `root/<held out>/<class>/...`, the first of test, val, valid and validation that has class folders;
      `test_fraction` is then without meaning;
    - `root/<class>/...` (or `root/train/<class>/...` alone): `test_fraction` of each class, at least one image, is held out, the same
      ones at every seed;
    - `root/*.png` (or `root/train/*.png`): as above, with the one class "all".

    Classes are the folders that hold images at any depth, in the order of their names; hidden files and folders do not count.
    The fingerprint covers the images' paths relative to `root`, sizes in bytes, labels and splits, and `image_size`. It does not cover
    their contents: an image replaced by another of the same length goes unnoticed.

    Raises FileNotFoundError where `root` does not exist, and ValueError where it is not given, holds no images, mixes images with class
    folders, or has classes in the test split that the training split lacks.
    """

    def __init__(
        self,
        *,
        name: str,
        root: str,
        image_size: int,
        test_fraction: float,
        label_safe_flips: bool,
        subset: float | str | None,
        seed: int,
    ):
        if not root:
            raise ValueError("data.root is not given. Set data.root=DIR to the folder that holds train/ and val/, or one folder a class.")
        root = os.path.expanduser(root)  # shells leave the ~ in data.root=~/images
        if not os.path.isdir(root):
            raise FileNotFoundError(f"data.root={root} is not a folder. Set it to the one that holds train/ and val/, or one folder a class.")
        if image_size < 1:
            raise ValueError(f"data.image_size is {image_size}. Give the side of the square crop in pixels.")
        train, test = _splits(Path(root), test_fraction=test_fraction)
        self.name = name
        self.image_size = image_size
        self.label_safe_flips = label_safe_flips
        self.class_names = tuple(sorted({file.label for file in train}))
        self.num_classes = len(self.class_names)
        kept = choose(self._labels(train), subset=subset, seed=seed, names=[file.path for file in train])
        train = [train[i] for i in kept.tolist()]
        self.train = FolderSplit(root, [file.path for file in train], self._labels(train), image_size=image_size)
        self.test = FolderSplit(root, [file.path for file in test], self._labels(test), image_size=image_size)
        self.fingerprint = _fingerprint(train, test, image_size=image_size)

    def _labels(self, files: "list[File]") -> Tensor:
        positions = {name: i for i, name in enumerate(self.class_names)}
        return torch.tensor([positions[file.label] for file in files])


class FolderSplit(Dataset):
    """Images read on access. Raises ValueError with the name of a file that cannot be read as an image."""

    def __init__(self, root: str, paths: list[str], labels: Tensor, *, image_size: int):
        self.root = root
        self.paths = paths  # relative to the root
        self.labels = labels  # (n,)
        self.image_size = image_size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path = os.path.join(self.root, self.paths[index])
        try:
            with Image.open(path) as image:
                pixels = np.array(center_crop(to_rgb(image), self.image_size))
        except (OSError, EOFError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what Pillow raises on broken files
            raise ValueError(f"Cannot read {path} as an image: {error} Repair or remove the file.") from error
        return from_uint8(rearrange(torch.from_numpy(pixels), "h w c -> c h w")), int(self.labels[index])


@dataclass(frozen=True, order=True)
class File:
    """An image file: its path relative to the data root, with forward slashes, its class and its length in bytes."""

    path: str
    label: str
    num_bytes: int


def _splits(root: Path, *, test_fraction: float) -> tuple[list[File], list[File]]:
    held_out = [folder for name in HELD_OUT if (folder := root / name).is_dir()]
    if {folder.name for folder in _folders(root)} <= {*HELD_OUT} and held_out:
        raise ValueError(f"{root} has {held_out[0].name}/ but no train/ beside it. Add train/, or set data.root={held_out[0]} to divide that.")
    divided = (root / "train").is_dir() and (held_out or _folders(root) == [root / "train"])  # otherwise "train" is a class: trains
    train = _scan(root / "train", prefix="train/") if divided else _scan(root, prefix="")
    if not train:
        raise ValueError(f"There are no images in {root} or its class folders. Images end in one of: {' '.join(EXTENSIONS)}.")
    if divided and held_out:
        test = _first_like(train, held_out, root=root)
        cure = "Remove them, or add images of them to train/."
    else:
        train, test = _divide(train, test_fraction=test_fraction)
        cure = "Give each at least two images, or lower data.test_fraction."
    unknown = sorted({file.label for file in test} - {file.label for file in train})
    if unknown:
        raise ValueError(f"The test split of {root} has classes that its training split lacks: {', '.join(unknown)}. {cure}")
    return train, test


def _first_like(train: list[File], held_out: list[Path], *, root: Path) -> list[File]:
    """The first held-out split with class folders, or without them where `train` has none: ImageNet's test/ has none, its val/ has."""
    flat = {file.label for file in train} == {ONE_CLASS}
    for folder in held_out:
        files = _scan(folder, prefix=f"{folder.name}/")
        if files and ({file.label for file in files} == {ONE_CLASS}) == flat:
            return files
    kind = "images" if flat else "class folders with images"
    raise ValueError(f"{root / 'train'} has {kind}, but {' and '.join(f.name + '/' for f in held_out)} beside it have none. Add or remove them.")


def _divide(files: list[File], *, test_fraction: float) -> tuple[list[File], list[File]]:
    if not 0 < test_fraction < 1:
        raise ValueError(f"data.test_fraction is {test_fraction}. Give a fraction between 0 and 1, both excluded.")
    names = sorted({file.label for file in files})
    positions = {name: i for i, name in enumerate(names)}
    chosen = set(stratified(torch.tensor([positions[file.label] for file in files]), test_fraction, "test split").tolist())
    return [f for i, f in enumerate(files) if i not in chosen], [f for i, f in enumerate(files) if i in chosen]


def _scan(folder: Path, *, prefix: str) -> list[File]:
    """All images of class folders, or the loose images of a folder that has none, in the order of their paths."""
    classes = [
        File(path, sub.name, num_bytes) for sub in _folders(folder) for path, num_bytes in _images(sub, prefix=f"{prefix}{sub.name}/", nested=True)
    ]
    loose = [File(path, ONE_CLASS, num_bytes) for path, num_bytes in _images(folder, prefix=prefix, nested=False)]
    if classes and loose:
        raise ValueError(f"{folder} has class folders and {len(loose)} images beside them ({loose[0].path}). Move these into a class or away.")
    return sorted(classes or loose)


def _images(folder: Path | str, *, prefix: str, nested: bool) -> Iterator[tuple[str, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                if nested:
                    yield from _images(entry.path, prefix=f"{prefix}{entry.name}/", nested=True)
            elif entry.name.lower().endswith(EXTENSIONS):
                yield prefix + entry.name, entry.stat().st_size


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _fingerprint(train: list[File], test: list[File], *, image_size: int) -> str:
    digest = hashlib.sha256(f"folder\0{REVISION}\0{image_size}\n".encode())
    for split, files in (("train", train), ("test", test)):
        for file in files:
            digest.update(f"{split}\0{file.path}\0{file.num_bytes}\0{file.label}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
