"""Image files in two splits, whatever assigns them: their check, digests and fingerprint."""

import hashlib
import logging
import os
from collections.abc import Mapping

import torch
from PIL import Image
from torch import Tensor

from ldbench.data import fingerprints
from ldbench.data.checks import check_images, describe_unreadable, for_each_file, read_image
from ldbench.data.layouts import File, composed
from ldbench.data.original_images import OriginalImages
from ldbench.data.subset import select_items
from ldbench.io.files import file_digest

log = logging.getLogger(__name__)

REVISION = 2  # raise when the images, their order or the split change

CHECKS = ("decode", "none")
ON_ERROR = ("raise", "skip")


class ImageFiles:
    """Image files below `root`, center-cropped to `image_size`, with one class for each label of the training files.

    `titles` maps labels to the names of their classes, where these differ.

    With check=decode every image of the subset is decoded once at the start; with check=none an unreadable one raises
    on access. With on_error=raise unreadable images are one error; with on_error=skip they are left out, logged and
    listed in `skipped`. Leaving one out moves no other image to another split.

    The fingerprint covers the images' paths relative to `root`, sizes in bytes, labels and splits, `image_size`, and
    contents. With fingerprint=sample that is 64 KiB of each of at most 1000 files, with content all bytes; auto is
    content where check=decode reads all files anyway, and else sample. Up to 1000 files of at most 64 KiB have the same
    fingerprint in all cases.

    Raises ValueError for images that cannot be read (with skip: if a class or a split has no others).
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
        titles: Mapping[str, str] = {},
    ):
        self.name = name
        self.image_size = image_size
        self.label_safe_flips = label_safe_flips
        self._classes = {label: i for i, label in enumerate(sorted({file.label for file in train}))}
        self.class_names = tuple(titles.get(label, label) for label in self._classes)
        self.num_classes = len(self.class_names)
        kept = select_items(self._labels(train), subset=subset, seed=seed, names=[file.path for file in train])
        train = [train[i] for i in kept.tolist()]
        self.skipped: tuple[str, ...] = ()  # relative to the root
        digests: dict[str, str] = {}
        if check == "decode":
            checked = check_images(root, [file.path for file in (*train, *test)])
            unreadable, digests = checked.unreadable, checked.digests
            if unreadable and on_error == "raise":
                raise ValueError(describe_unreadable(root, unreadable, num_files=len(train) + len(test)))
            if unreadable:
                first, reason = next(iter(unreadable.items()))
                log.warning(
                    "%d of %d images in %s cannot be read and are left out. The first: %s: %s",
                    len(unreadable),
                    len(train) + len(test),
                    root,
                    first,
                    reason,
                )
            train, test = _without(train, unreadable, split="training"), _without(test, unreadable, split="test")
            self.skipped = tuple(unreadable)
        self.train = FilesSplit(root, tuple(file.path for file in train), self._labels(train), image_size=image_size)
        self.test = FilesSplit(root, tuple(file.path for file in test), self._labels(test), image_size=image_size)
        if fingerprint != "auto":
            digests = digests_of(root, [file.path for file in (*train, *test)], fingerprint, known=digests)
        elif check != "decode":
            digests = digests_of(root, [file.path for file in (*train, *test)], "sample")
        self.fingerprint = _fingerprint(train, test, digests, image_size=image_size)

    def _labels(self, files: list[File]) -> Tensor:
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


def digests_of(root: str, names: list[str], fingerprint: str, *, known: Mapping[str, str] = {}) -> dict[str, str]:
    """The digests by which the files below `root` are identified, of all or of a sample. Raises ValueError, naming it,
    for a file that cannot be read.
    """
    if fingerprint == "content" and names and all(name in known for name in names):
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


def validate_settings(*, image_size: int, check: str, on_error: str, fingerprint: str) -> None:
    """Raises ValueError for settings that do not exist or contradict each other, before any file is looked for."""
    for key, choice, known in (
        ("check", check, CHECKS),
        ("on_error", on_error, ON_ERROR),
        ("fingerprint", fingerprint, fingerprints.CHOICES),
    ):
        if choice not in known:
            raise ValueError(f"data.{key} is {choice!r}. Choose {' or '.join(known)}.")
    if check == "none" and on_error == "skip":
        raise ValueError(
            "data.on_error=skip leaves out the images that the check finds, but data.check is none. "
            "Set data.check=decode."
        )
    if image_size < 1:
        raise ValueError(f"data.image_size is {image_size}. Give the side of the square crop in pixels.")


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


def _fingerprint(train: list[File], test: list[File], digests: Mapping[str, str], *, image_size: int) -> str:
    digest = hashlib.sha256(f"folder\0{REVISION}\0{image_size}\n".encode())
    for split, files in (("train", train), ("test", test)):
        for file in files:
            line = f"{split}\0{composed(file.path)}\0{file.num_bytes}\0{file.label}\0{digests.get(file.path, '')}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
