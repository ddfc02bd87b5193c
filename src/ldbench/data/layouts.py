"""Assigns the image files of a folder to splits and classes."""

import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import features

from ldbench.data.split_names import (
    HELD_OUT,
    USUAL,
    SplitFolders,
    find_split_folders,
    folder_names,
    is_like,
)
from ldbench.data.subset import select_stratified
from ldbench.io.files import OUTPUT_MARKER, printable

log = logging.getLogger(__name__)

LAYOUTS = ("auto", "classes", "flat", "tinyimagenet")
EXTENSIONS = (
    *(".apng", ".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm", ".png", ".pnm"),
    *(".ppm", ".qoi", ".tga", ".tif", ".tiff", ".webp"),
    *((".avif",) if features.check("avif") else ()),
    *((".j2k", ".jp2") if features.check("jpg_2000") else ()),
)
ONE_CLASS = "all"
MAX_LISTED = 5

SORT = (
    "Sort it: move each image into a folder of its class. "
    "For ImageNet, torchvision.datasets.ImageNet(DIR, split='val') "
    "does this from ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz."
)


@dataclass(frozen=True)
class File:
    """An image file: its path relative to the data root, with forward slashes, its class and its length in bytes."""

    path: str
    label: str
    num_bytes: int


def find_splits(
    root: Path,
    *,
    layout: str,
    test_fraction: float | None,
    train_folder: str | None = None,
    test_folder: str | None = None,
) -> tuple[list[File], list[File]]:
    """The training files and the test files below `root`, each in the order of their paths.

    `layout` says how to read the folders:

    - classes: `root/train/<class>/...` next to `root/<held out>/<class>/...`, the first of test, val, valid and
      validation that has a class of train/, or two folders of other such names (see `find_split_folders`); or
      `root/<class>/...` (or `root/train/<class>/...`) alone, and `test_fraction` of each class, at least one image,
      is held out;
    - flat: the same splits, where every image at any depth has the single class "all";
    - tinyimagenet: `root/train/<class>/images/*` next to `root/val/images/*`, with the classes in
      `root/val/val_annotations.txt` (one line per image: file, class and box, separated by tabs);
    - auto: tinyimagenet if the annotations and val/images/ exist, else classes if there are class folders, else flat.

    `train_folder` and `test_folder` name the folders of the splits. Classes are folders that hold images at any depth,
    with equal names however their accents are encoded; hidden files and folders, and folders in which ldbench stores
    its outputs, do not count. With `test_fraction` None the held-out folder must exist.

    Raises ValueError, with what to move, for an unknown layout and for folders that do not follow it.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"data.layout is {layout!r}. Choose one of {', '.join(LAYOUTS)}.")
    if (root / OUTPUT_MARKER).exists():
        raise ValueError(
            f"data.root={root} holds what ldbench writes, see {root / OUTPUT_MARKER}. Set data.root to the folder of "
            "the images. If the images are in it, move them, or move the outputs with paths.root=DIR and remove this "
            "file."
        )
    annotated = (root / "val" / "images").is_dir() and (root / "val" / "val_annotations.txt").is_file()
    listing = Listing()
    try:
        if layout == "tinyimagenet" or (layout == "auto" and annotated):
            found = _tinyimagenet(root, listing)
        else:
            scan = listing.as_one if layout == "flat" else listing.by_class
            splits = given_splits(root, train_folder, test_folder)
            found = _split_folders(root, scan, splits, layout=layout, test_fraction=test_fraction)
    except PermissionError as error:
        raise ValueError(
            f"You have no permission to list {error.filename}. Change its permissions, or copy the images."
        ) from error
    if listing.others:
        most = sorted(listing.others.items(), key=lambda item: (-item[1], item[0]))[:MAX_LISTED]
        endings = ", ".join(f"{ending} ({count})" for ending, count in most)
        log.info("%d files in %s are left out, by their endings: %s.", listing.others.total(), root, endings)
    return found


def given_splits(root: Path, train_folder: str | None, test_folder: str | None) -> SplitFolders | None:
    """The folders that a config names. Raises ValueError for one alone, and for one that is missing."""
    if train_folder is None and test_folder is None:
        return None
    if not train_folder or not test_folder or train_folder == test_folder:
        raise ValueError(
            f"data.train_folder={train_folder} and data.test_folder={test_folder} name the splits together: give two "
            "folders in data.root. To hold out a part of one folder, set data.root to it."
        )
    train, test = root / train_folder, root / test_folder
    for key, folder in (("train_folder", train), ("test_folder", test)):
        if not folder.is_dir():
            raise ValueError(f"data.{key}: {folder} is not a folder. It has: {', '.join(sorted(folder_names(root)))}.")
    return SplitFolders(train, (test,))


def _split_folders(
    root: Path, scan: "Scan", given: SplitFolders | None, *, layout: str, test_fraction: float | None
) -> tuple[list[File], list[File]]:
    folders = _folders(root)
    splits = given or find_split_folders(root, folders, ambiguous=layout != "auto")
    lone = [folder for folder in folders if is_like(folder.name, HELD_OUT)]
    if splits is None and lone and {folder.name for folder in folders} <= {*USUAL}:
        raise ValueError(
            f"{root} has {lone[0].name}/ but no train/ next to it. "
            f"Add train/, or set data.root={lone[0]} to split that."
        )
    if splits is None and len(folders) == 1:
        inner = find_split_folders(folders[0], _folders(folders[0]), ambiguous=True)
        if inner is not None and inner.held_out:
            raise ValueError(
                f"{root} has no folder but {folders[0].name}/, which holds {inner.train.name}/ and more. "
                f"Set data.root={folders[0]}."
            )
    top = root if splits is None else splits.train
    prefix = "" if splits is None else f"{top.relative_to(root).as_posix()}/"
    train = scan(top, prefix)
    if not train:
        raise ValueError(
            f"There are no images in {root} or its class folders. Images end in one of: {' '.join(EXTENSIONS)}."
        )
    if layout == "classes" and "/" not in train[0].path.removeprefix(prefix):
        raise ValueError(f"{top} has {len(train)} images and no class folders, which data.layout=classes needs. {SORT}")
    if splits is not None and splits.held_out:
        test = _find_held_out(train, splits, scan=scan, root=root)
        cure = f"Remove them, or add images of them to {top.name}/."
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


def _find_held_out(train: list[File], splits: SplitFolders, *, scan: "Scan", root: Path) -> list[File]:
    """The first held-out split with a class of `train`: the test/ of ImageNet and Tiny ImageNet has no classes, their
    val/ has.
    """
    known, by_folder = _labels(train), {}
    for folder in splits.held_out:
        files = by_folder[folder] = scan(folder, f"{folder.relative_to(root).as_posix()}/")
        if _labels(files) & known:
            return files
        log.info("%s is skipped: it has no images of the classes in %s/.", folder, splits.train.name)
    # A test/ is often unlabeled on purpose, so val/ is reported first.
    filled = sorted((folder for folder, files in by_folder.items() if files), key=lambda folder: folder.name != "val")
    if not filled:
        raise ValueError(
            f"There are no images in {' and '.join(map(str, splits.held_out))}. "
            f"Fill the folders next to {splits.train.name}/, or remove them."
        )
    files = by_folder[filled[0]]
    if _labels(files) == {ONE_CLASS}:
        raise ValueError(
            f"{splits.train} has class folders with images, but {filled[0]} has {len(files)} images and none. {SORT}"
        )
    if known == {ONE_CLASS}:
        raise ValueError(
            f"{splits.train} has images without class folders, but {filled[0]} has class folders. "
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


def _tinyimagenet(root: Path, listing: "Listing") -> tuple[list[File], list[File]]:
    otherwise = "If val/ is sorted into class folders, set data.layout=classes."
    for part in ("train", "val/images", "val/val_annotations.txt"):
        if not (root / part).exists():
            raise ValueError(
                f"{root / part} is missing, which data.layout=tinyimagenet needs. "
                f"Set data.root to the unpacked tiny-imagenet-200/. {otherwise}"
            )
    train = listing.by_class(root / "train", "train/")
    if not train:
        raise ValueError(f"There are no images in the class folders of {root / 'train'}. Unpack the archive again.")
    images = dict(listing.images(root / "val" / "images", "val/images/", nested=False))
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
    return train, _in_order(File(path, label, images[path]) for path, label in labels.items())


# (folder, its path relative to the root, ending in /) -> files in the order of their paths
Scan = Callable[[Path, str], list[File]]


def read_lines(path: Path) -> list[str]:
    """The lines of a text file. Raises ValueError, naming the file, if it is not text."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}). Unpack or write it again.") from error


@dataclass
class Listing:
    """Lists the images of folders, and counts the other files that it sees by their endings."""

    others: Counter[str] = field(default_factory=Counter)

    def by_class(self, folder: Path, prefix: str) -> list[File]:
        """The images of class folders, or the images directly in a folder that has none."""
        loose = _in_order(File(path, ONE_CLASS, size) for path, size in self.images(folder, prefix, nested=False))
        by_folder = {
            sub.name: [
                File(path, composed(printable(sub.name)), size)
                for path, size in self.images(sub, f"{prefix}{sub.name}/", nested=True)
            ]
            for sub in _folders(folder)
        }
        empty = [name for name, files in by_folder.items() if not files]
        classes = _in_order(file for files in by_folder.values() for file in files)
        if classes and loose:
            raise ValueError(
                f"{folder} has class folders and {len(loose)} images next to them ({loose[0].path}). "
                "Move these into a class folder or remove them."
            )
        if classes and empty:
            raise ValueError(
                f"The class folders {', '.join(empty)} in {folder} have no images. Fill them, or remove them."
            )
        return classes or loose

    def as_one(self, folder: Path, prefix: str) -> list[File]:
        """All images at any depth, as one class."""
        return _in_order(File(path, ONE_CLASS, size) for path, size in self.images(folder, prefix, nested=True))

    def images(
        self, folder: Path | str, prefix: str, *, nested: bool, above: frozenset[str] = frozenset()
    ) -> Iterator[tuple[str, int]]:
        """The images in a folder: path relative to the root, length in bytes.

        `above`: its parent folders, to detect cycles.
        """
        real = os.path.realpath(folder)
        if real in above:
            raise ValueError(
                f"{folder} is a link to a folder above it, {real}: the folders form a cycle. Remove the link."
            )
        if holds_outputs(folder):
            return
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if os.path.isdir(entry.path):  # also false for a link to itself
                    if nested:
                        yield from self.images(entry.path, f"{prefix}{entry.name}/", nested=True, above=above | {real})
                elif entry.name.lower().endswith(EXTENSIONS):
                    try:
                        num_bytes = entry.stat().st_size
                    except OSError as error:  # also a link to itself
                        raise ValueError(
                            f"{entry.path} is a link to a file that does not exist. Restore the file, or remove the "
                            "link."
                        ) from error
                    if not entry.is_file():
                        raise ValueError(f"{entry.path} is a pipe or a device, not an image file. Remove it.")
                    yield prefix + entry.name, num_bytes
                else:
                    self.others[os.path.splitext(entry.name)[1].lower() or "none"] += 1


def holds_outputs(folder: Path | str) -> bool:
    """Whether ldbench stores its outputs in a folder."""
    return os.path.exists(os.path.join(folder, OUTPUT_MARKER))


def _folders(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".") and not holds_outputs(path)
    )


def _labels(files: list[File]) -> set[str]:
    return {file.label for file in files}


def composed(text: str) -> str:
    """A name with accents as single characters: macOS writes them as two."""
    return unicodedata.normalize("NFC", text)


def _in_order(files: Iterable[File]) -> list[File]:
    """Files by their paths, in the same order however accents are encoded."""
    return sorted(files, key=lambda file: (composed(file.path), file.path))
