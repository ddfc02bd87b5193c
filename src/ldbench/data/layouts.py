"""Assigns the image files of a folder to splits and classes."""

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from ldbench.data.subset import select_stratified

log = logging.getLogger(__name__)

LAYOUTS = ("auto", "classes", "flat", "tinyimagenet")
EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
HELD_OUT = ("test", "val", "valid", "validation")
ONE_CLASS = "all"

SORT = (
    "Sort it: move each image into a folder of its class. "
    "For ImageNet, torchvision.datasets.ImageNet(DIR, split='val') "
    "does this from ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz."
)


@dataclass(frozen=True, order=True)
class File:
    """An image file: its path relative to the data root, with forward slashes, its class and its length in bytes."""

    path: str
    label: str
    num_bytes: int


def find_splits(root: Path, *, layout: str, test_fraction: float | None) -> tuple[list[File], list[File]]:
    """The training files and the test files below `root`, each in the order of their paths.

    `layout` says how to read the folders:

    - classes: `root/train/<class>/...` next to `root/<held out>/<class>/...`, the first of test, val, valid and
      validation that has a class of train/; or `root/<class>/...` (or `root/train/<class>/...`) alone, and
      `test_fraction` of each class, at least one image, is held out;
    - flat: the same splits, where every image at any depth has the single class "all";
    - tinyimagenet: `root/train/<class>/images/*` next to `root/val/images/*`, with the classes in
      `root/val/val_annotations.txt` (one line per image: file, class and box, separated by tabs);
    - auto: tinyimagenet if the annotations and val/images/ exist, else classes if there are class folders, else flat.

    Classes are folders that hold images at any depth; hidden files and folders do not count. With `test_fraction` None
    the held-out folder must exist.

    Raises ValueError, with what to move, for an unknown layout and for folders that do not follow it.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"data.layout is {layout!r}. Choose one of {', '.join(LAYOUTS)}.")
    annotated = (root / "val" / "images").is_dir() and (root / "val" / "val_annotations.txt").is_file()
    try:
        if layout == "tinyimagenet" or (layout == "auto" and annotated):
            return _tinyimagenet(root)
        return _split_folders(root, layout=layout, test_fraction=test_fraction)
    except PermissionError as error:
        raise ValueError(
            f"You have no permission to list {error.filename}. Change its permissions, or copy the images."
        ) from error


def _split_folders(root: Path, *, layout: str, test_fraction: float | None) -> tuple[list[File], list[File]]:
    scan = _as_one if layout == "flat" else _by_class
    folders = _folders(root)
    held_out = [folder for name in HELD_OUT if (folder := root / name) in folders]
    if {folder.name for folder in folders} <= {*HELD_OUT} and held_out:
        raise ValueError(
            f"{root} has {held_out[0].name}/ but no train/ next to it. "
            f"Add train/, or set data.root={held_out[0]} to split that."
        )
    if len(folders) == 1 and (folders[0] / "train").is_dir() and any((folders[0] / name).is_dir() for name in HELD_OUT):
        raise ValueError(
            f"{root} has no folder but {folders[0].name}/, which holds train/ and more. Set data.root={folders[0]}."
        )
    # With other folders next to it, "train" is a class: trains.
    has_splits = (root / "train").is_dir() and (held_out or folders == [root / "train"])
    top, prefix = (root / "train", "train/") if has_splits else (root, "")
    train = scan(top, prefix)
    if not train:
        raise ValueError(
            f"There are no images in {root} or its class folders. Images end in one of: {' '.join(EXTENSIONS)}."
        )
    if layout == "classes" and "/" not in train[0].path.removeprefix(prefix):
        raise ValueError(f"{top} has {len(train)} images and no class folders, which data.layout=classes needs. {SORT}")
    if has_splits and held_out:
        test = _find_held_out(train, held_out, scan=scan, root=root)
        cure = "Remove them, or add images of them to train/."
    elif test_fraction is None:
        raise ValueError(
            f"{root} has no train/ with a val/ next to it. "
            "Set data.root to the folder that holds both, or data.test_fraction=0.1 to hold out "
            "a share of these images."
        )
    else:
        train, test = _split(train, test_fraction=test_fraction)
        cure = "Give each at least two images, or lower data.test_fraction."
    unknown = sorted(_labels(test) - _labels(train))
    if unknown:
        raise ValueError(
            f"The test split of {root} has classes that its training split lacks: {', '.join(unknown)}. {cure}"
        )
    return train, test


def _find_held_out(train: list[File], held_out: list[Path], *, scan: "Scan", root: Path) -> list[File]:
    """The first held-out split with a class of `train`: the test/ of ImageNet and Tiny ImageNet has no classes, their
    val/ has.
    """
    known, by_folder = _labels(train), {}
    for folder in held_out:
        files = by_folder[folder.name] = scan(folder, f"{folder.name}/")
        if _labels(files) & known:
            return files
        log.info("%s is skipped: it has no images of the classes in train/.", folder)
    # A test/ is often unlabeled on purpose, so val/ is reported first.
    filled = sorted((name for name, files in by_folder.items() if files), key=lambda name: name != "val")
    if not filled:
        raise ValueError(
            f"There are no images in {' and '.join(map(str, held_out))}. "
            "Fill the folders next to train/, or remove them."
        )
    name, files = filled[0], by_folder[filled[0]]
    if _labels(files) == {ONE_CLASS}:
        raise ValueError(
            f"{root / 'train'} has class folders with images, but {root / name} has {len(files)} images and none. "
            f"{SORT}"
        )
    if known == {ONE_CLASS}:
        raise ValueError(
            f"{root / 'train'} has images without class folders, but {root / name} has class folders. "
            "Give both the same layout, "
            "or set data.layout=flat to take all as one class."
        )
    return files  # all of their classes are missing from train/: the caller lists them


def _split(files: list[File], *, test_fraction: float) -> tuple[list[File], list[File]]:
    if not 0 < test_fraction < 1:
        raise ValueError(f"data.test_fraction is {test_fraction}. Give a fraction between 0 and 1, both excluded.")
    positions = {name: i for i, name in enumerate(sorted(_labels(files)))}
    chosen = set(
        select_stratified(torch.tensor([positions[file.label] for file in files]), test_fraction, "test split").tolist()
    )
    return [f for i, f in enumerate(files) if i not in chosen], [f for i, f in enumerate(files) if i in chosen]


def _tinyimagenet(root: Path) -> tuple[list[File], list[File]]:
    otherwise = "If val/ is sorted into class folders, set data.layout=classes."
    for part in ("train", "val/images", "val/val_annotations.txt"):
        if not (root / part).exists():
            raise ValueError(
                f"{root / part} is missing, which data.layout=tinyimagenet needs. "
                f"Set data.root to the unpacked tiny-imagenet-200/. {otherwise}"
            )
    train = _by_class(root / "train", "train/")
    if not train:
        raise ValueError(f"There are no images in the class folders of {root / 'train'}. Unpack the archive again.")
    images = dict(_images(root / "val" / "images", "val/images/", nested=False))
    annotations, known, labels = root / "val" / "val_annotations.txt", _labels(train), {}
    for number, line in enumerate(read_lines(annotations), start=1):
        name, label = [*line.split("\t"), "", ""][:2]
        path, where = f"val/images/{name}", f"Line {number} of {annotations}"
        if not label:
            raise ValueError(
                f"{where} is {line!r}. Expected a file, its class and its box, separated by tabs. "
                "Unpack the archive again."
            )
        if label not in known:
            raise ValueError(
                f"{where} assigns {name} to class {label}, which {root / 'train'} lacks. "
                "Add that folder, or remove the line."
            )
        if path not in images or path in labels:
            what = "an earlier line does too" if path in labels else f"{root / 'val' / 'images'} does not have it"
            raise ValueError(f"{where} names {name}, but {what}. Restore the image, or remove the line.")
        labels[path] = label
    unlabeled = sorted(images.keys() - labels.keys())
    if unlabeled:
        raise ValueError(
            f"{annotations} has no line for {len(unlabeled)} images, such as {unlabeled[0]}. "
            "Add their lines, or remove them."
        )
    if not labels:
        raise ValueError(
            f"{annotations} is empty, and so is val/images/ next to it. Unpack the archive again. {otherwise}"
        )
    return train, sorted(File(path, label, images[path]) for path, label in labels.items())


# (folder, its path relative to the root, ending in /) -> files in the order of their paths
Scan = Callable[[Path, str], list[File]]


def read_lines(path: Path) -> list[str]:
    """The lines of a text file. Raises ValueError, naming the file, if it is not text."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}). Unpack or write it again.") from error


def _by_class(folder: Path, prefix: str) -> list[File]:
    """The images of class folders, or the images directly in a folder that has none."""
    loose = sorted(File(path, ONE_CLASS, num_bytes) for path, num_bytes in _images(folder, prefix, nested=False))
    by_class = {
        sub.name: [File(path, sub.name, size) for path, size in _images(sub, f"{prefix}{sub.name}/", nested=True)]
        for sub in _folders(folder)
    }
    empty = [name for name, files in by_class.items() if not files]
    classes = sorted(file for files in by_class.values() for file in files)
    if classes and loose:
        raise ValueError(
            f"{folder} has class folders and {len(loose)} images next to them ({loose[0].path}). "
            "Move these into a class folder or remove them."
        )
    if classes and empty:
        raise ValueError(f"The class folders {', '.join(empty)} in {folder} have no images. Fill them, or remove them.")
    return classes or loose


def _as_one(folder: Path, prefix: str) -> list[File]:
    return sorted(File(path, ONE_CLASS, num_bytes) for path, num_bytes in _images(folder, prefix, nested=True))


def _images(
    folder: Path | str, prefix: str, *, nested: bool, above: frozenset[str] = frozenset()
) -> Iterator[tuple[str, int]]:
    """The images in a folder: path relative to the root, length in bytes.

    `above`: its parent folders, to detect cycles.
    """
    real = os.path.realpath(folder)
    if real in above:
        raise ValueError(f"{folder} is a link to a folder above it, {real}: the folders form a cycle. Remove the link.")
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if os.path.isdir(entry.path):  # also false for a link to itself
                if nested:
                    yield from _images(entry.path, f"{prefix}{entry.name}/", nested=True, above=above | {real})
            elif entry.name.lower().endswith(EXTENSIONS):
                try:
                    num_bytes = entry.stat().st_size
                except OSError as error:  # also a link to itself
                    raise ValueError(
                        f"{entry.path} is a link to a file that does not exist. Restore the file, or remove the link."
                    ) from error
                if not entry.is_file():
                    raise ValueError(f"{entry.path} is a pipe or a device, not an image file. Remove it.")
                yield prefix + entry.name, num_bytes


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _labels(files: list[File]) -> set[str]:
    return {file.label for file in files}
