"""Image files in two splits, whatever assigns them: their check, digests and fingerprint."""

import hashlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ldbench.data import fingerprints
from ldbench.data.checks import check_images, describe_unreadable, for_each_file, read_image
from ldbench.data.layouts import File, composed
from ldbench.data.original_images import OriginalImages
from ldbench.data.pixel_digests import decode_all
from ldbench.data.subset import select_items
from ldbench.data.written import Written
from ldbench.io.files import digest, file_digest

log = logging.getLogger(__name__)

REVISION = 2  # raise when the images, their order or the split change


class ImageFiles:
    """Image files below `root`, center-cropped to `image_size`, with one class for each label of the training files.

    `titles` maps labels to the names of their classes, where these differ. Of files that `job=write_shards` wrote,
    `written` gives their labels and the order of the classes.

    With check=decode every image of the subset is decoded once at the start; with check=none an unreadable one raises
    on access. With on_error=raise unreadable images are one error; with on_error=skip they are left out, logged and
    listed in `skipped`. Leaving one out moves no other image to another split.

    With fingerprint=content the fingerprint covers decoded pixels, labels, their order and `image_size`, as for any
    other container of the same images. Digests of files that did not change are kept in `cache_dir`, so that these are
    decoded once. Otherwise it covers the images' paths relative to `root`, sizes in bytes, labels and splits,
    `image_size`, and the files: with sample 64 KiB of each of at most 1000, with bytes all of them; auto is bytes where
    check=decode reads all files anyway, and else sample. Up to 1000 files of at most 64 KiB have the same fingerprint
    by sample, bytes and auto.

    Raises ValueError for settings that do not exist, and for images that cannot be read (with skip: if a class or a
    split has no others).
    """

    def __init__(
        self,
        root: str,
        train: list[File],
        test: list[File],
        *,
        name: str,
        image_size: int,
        label_safe_flips: bool,
        fingerprint: str,
        check: str,
        on_error: str,
        subset: float | str | None,
        seed: int,
        cache_dir: str | None,
        titles: Mapping[str, str] = {},
        written: Written | None = None,
    ):
        self.name = name
        self.image_size = image_size
        self.label_safe_flips = label_safe_flips
        self.written = written
        self._classes = {label: i for i, label in enumerate(sorted({file.label for file in train}))}
        self.class_names = (
            tuple(titles.get(label, label) for label in self._classes)
            if written is None
            else tuple(written.class_names)
        )
        self.num_classes = len(self.class_names)
        kept = select_items(self._labels(train), subset=subset, seed=seed, names=[file.path for file in train])
        train = [train[i] for i in kept.tolist()]
        files = [*train, *test]
        paths = [file.path for file in files]
        unreadable: dict[str, str] = {}
        digests: dict[str, str] = {}
        if fingerprint == "content":
            unreadable, digests = pixel_digests(root, files, cache=None if cache_dir is None else Path(cache_dir))
        elif check == "decode":
            checked = check_images(root, paths)
            unreadable, digests = checked.unreadable, checked.digests
        if unreadable and on_error == "raise":
            raise ValueError(describe_unreadable(root, unreadable, num_files=len(files)))
        if unreadable:
            first, reason = next(iter(unreadable.items()))
            log.warning(
                "%d of %d images in %s cannot be read and are left out. The first: %s: %s",
                *(len(unreadable), len(files), root, first, reason),
            )
        train, test = _without(train, unreadable, split="training"), _without(test, unreadable, split="test")
        self.skipped = tuple(unreadable)  # relative to the root
        labels = {"train": self._labels(train), "test": self._labels(test)}
        self.train = FilesSplit(root, tuple(file.path for file in train), labels["train"], image_size=image_size)
        self.test = FilesSplit(root, tuple(file.path for file in test), labels["test"], image_size=image_size)
        if fingerprint == "content":
            pairs = [
                list(zip(labels[split].tolist(), (digests[file.path] for file in files), strict=True))
                for split, files in (("train", train), ("test", test))
            ]
            self.fingerprint = fingerprints.images_fingerprint(
                *pairs, image_size=image_size, num_classes=self.num_classes
            )
            return
        if fingerprint != "auto":
            digests = digests_of(root, [file.path for file in (*train, *test)], fingerprint, known=digests)
        elif check != "decode":
            digests = digests_of(root, [file.path for file in (*train, *test)], "sample")
        order = "" if written is None else digest([list(written.class_names), list(written.folders)])
        self.fingerprint = _fingerprint(train, test, digests, image_size=image_size, order=order)

    def _labels(self, files: list[File]) -> Tensor:
        if self.written is not None:
            return torch.tensor([self.written.label_of(file) for file in files])
        return torch.tensor([self._classes[file.label] for file in files])


class FilesSplit(OriginalImages):
    """Images read on access. Raises ValueError with the name of a file that cannot be read as an image."""

    def __init__(self, root: str, names: tuple[str, ...], labels: Tensor, *, image_size: int):
        self.root = root
        self.names = names  # relative to the root, with forward slashes
        self.labels = labels
        self.image_size = image_size

    def original(self, index: int) -> Image.Image:
        """An image file's pixels (see `checks.read_image`)."""
        path = os.path.join(self.root, self.names[index])
        try:
            return read_image(path)
        except ValueError as error:
            raise ValueError(
                f"Cannot read {path} as an image: "
                f"{error} Repair or remove the file; data.check=decode finds all of them."
            ) from error

    def encoded(self, index: int) -> tuple[bytes, str]:
        """A file's bytes, and its extension."""
        path = os.path.join(self.root, self.names[index])
        try:
            return Path(path).read_bytes(), os.path.splitext(path)[1].lower()
        except OSError as error:
            raise ValueError(f"Cannot read {path} ({error.strerror}). Repair or remove the file.") from error


def pixel_digests(root: str, files: list[File], *, cache: Path | None) -> tuple[dict[str, str], dict[str, str]]:
    """Decodes all files, except those that the cache knows: why some cannot be read, and the digests of the others'
    pixels, by path.
    """
    paths = [os.path.join(root, file.path) for file in files]
    stamps = [f"{file.path} {file.num_bytes} {os.stat(path).st_mtime_ns}" for file, path in zip(files, paths)]
    source = [os.path.realpath(root)]
    decoded = decode_all(stamps, lambda place: read_image(paths[place]), source=source, cache=cache)
    unreadable = {files[place].path: reason for place, reason in decoded.unreadable.items()}
    return unreadable, {files[place].path: pixels for place, pixels in decoded.digests.items()}


def digests_of(root: str, names: list[str], fingerprint: str, *, known: Mapping[str, str] = {}) -> dict[str, str]:
    """The digests by which the files below `root` are identified, of all or of a sample. Raises ValueError, naming it,
    for a file that cannot be read.
    """
    if fingerprint == "bytes" and names and all(name in known for name in names):
        return dict(known)

    def digest(path: str) -> str:
        if fingerprint == "sample":
            return fingerprints.sample_digest(path)
        return file_digest(path)

    chosen = fingerprints.spread_evenly(sorted(names), fingerprints.MAX_SAMPLED) if fingerprint == "sample" else names
    try:
        return dict(zip(chosen, for_each_file(root, chosen, digest, "Reading images"), strict=True))
    except OSError as error:
        raise ValueError(
            f"Cannot read {error.filename} ({error.strerror}). Repair or remove the file; data.check=decode finds all "
            "of them."
        ) from error


def _without(files: list[File], unreadable: dict[str, str], *, split: str) -> list[File]:
    kept = [file for file in files if file.path not in unreadable]
    lost = sorted({file.label for file in files} - {file.label for file in kept})
    if lost:
        what = "image" if not kept else f"image of class {', '.join(lost)}"
        first = next(file.path for file in files if file.label in lost)
        raise ValueError(
            f"data.on_error=skip leaves the {split} split without any {what}. The first: {first}: "
            f"{unreadable[first]} Repair these images, "
            "or remove the whole class from every split."
        )
    return kept


def _fingerprint(
    train: list[File], test: list[File], digests: Mapping[str, str], *, image_size: int, order: str
) -> str:
    digest = hashlib.sha256(f"folder\0{REVISION}\0{image_size}\n{order}".encode())
    for split, files in (("train", train), ("test", test)):
        for file in files:
            line = f"{split}\0{composed(file.path)}\0{file.num_bytes}\0{file.label}\0{digests.get(file.path, '')}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
