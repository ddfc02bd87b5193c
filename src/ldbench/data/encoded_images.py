"""Images of a container, such as shards or parquet files: split, subset, check and fingerprint as for folders."""

import hashlib
import logging
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from PIL import Image
from torch import Tensor

from ldbench.data import fingerprints
from ldbench.data.checks import describe_unreadable, for_each, read_image, validate_settings
from ldbench.data.fingerprints import MAX_SAMPLED
from ldbench.data.original_images import OriginalImages
from ldbench.data.pixel_digests import decode_all
from ldbench.data.subset import select_items, select_stratified

log = logging.getLogger(__name__)

FINGERPRINTS = ("content", "bytes", "sample")
REVISION = 1  # raise when the fingerprints "bytes" and "sample" change


class EncodedImages(OriginalImages):
    """A split whose images lie in a container as they would in files."""

    @abstractmethod
    def encoded(self, index: int) -> tuple[bytes, str]:
        """An image as it is stored, and the extension of its format, such as `.jpg`."""

    @abstractmethod
    def describe(self, index: int) -> str:
        """Where an image is, for people."""

    @abstractmethod
    def identity(self, index: int) -> str:
        """What identifies an image in its source, with all that changes when it is replaced."""

    @abstractmethod
    def select(self, indices: Tensor) -> Self:
        """The split with these images only, in this order."""

    def original(self, index: int) -> Image.Image:
        """An image's pixels (see `checks.read_image`)."""
        try:
            return self.decode(index)
        except ValueError as error:
            raise ValueError(
                f"Cannot read {self.describe(index)} as an image: {error} Repair or remove it; data.check=decode finds "
                "all of them."
            ) from error

    def decode(self, index: int) -> Image.Image:
        """An image's pixels. Raises ValueError with the reason alone."""
        return read_image("", self.encoded(index)[0])


@dataclass(frozen=True)
class ContainerSettings:
    """What the images of a container are checked and identified by. Raises ValueError for other choices."""

    image_size: int
    test_fraction: float | None
    check: str  # decode | none
    on_error: str  # raise | skip
    fingerprint: str  # content | bytes | sample
    subset: float | str | None
    seed: int

    def __post_init__(self) -> None:
        validate_settings(
            check=self.check,
            on_error=self.on_error,
            fingerprint=self.fingerprint,
            fingerprint_choices=FINGERPRINTS,
            image_size=self.image_size,
        )


@dataclass(frozen=True)
class Splits:
    """The splits of a container that are used, and what identifies them."""

    train: EncodedImages
    test: EncodedImages
    skipped: tuple[str, ...]  # images that cannot be read
    fingerprint: str


def finish_splits(
    train: EncodedImages,
    test: EncodedImages | None,
    settings: ContainerSettings,
    *,
    num_classes: int,
    where: str,
    cache: Path | None,  # the folder of digests that are known
) -> Splits:
    """Holds out a part where there is no test split, and selects, checks and identifies the images.

    Raises ValueError for images that cannot be read, and for a split without images.
    """
    if test is None:
        train, test = hold_out(train, settings.test_fraction, where=where)
    train = train.select(select_items(train.labels, subset=settings.subset, seed=settings.seed))
    for split, images in (("training", train), ("test", test)):
        if len(images) == 0:
            raise ValueError(f"There are no {split} images in {where}. Add them, or choose other splits.")
    both = [(images, index) for images in (train, test) for index in range(len(images))]
    if settings.check == "none" and settings.fingerprint != "content":
        return Splits(train, test, (), encoded_fingerprint(train, test, settings, num_classes=num_classes))
    decoded = decode_all(
        [images.identity(index) for images, index in both],
        lambda place: both[place][0].decode(both[place][1]),
        source=[where],
        cache=cache,
    )
    skipped = {both[place][0].describe(both[place][1]): reason for place, reason in decoded.unreadable.items()}
    if skipped and settings.on_error == "raise":
        raise ValueError(describe_unreadable(where, skipped, num_files=len(both)))
    if skipped:
        first, reason = next(iter(skipped.items()))
        log.warning(
            "%d of %d images in %s cannot be read and are left out. The first: %s: %s",
            *(len(skipped), len(both), where, first, reason),
        )
    kept = [place in decoded.digests for place in range(len(both))]
    pixels = [decoded.digests[place] for place in range(len(both)) if kept[place]]
    train = without(train, kept[: len(train)], split="training", skipped=skipped)
    test = without(test, kept[len(kept) - len(test) :], split="test", skipped=skipped)
    if settings.fingerprint != "content":
        fingerprint = encoded_fingerprint(train, test, settings, num_classes=num_classes)
    else:
        fingerprint = fingerprints.images_fingerprint(
            zip(train.labels.tolist(), pixels[: len(train)], strict=True),
            zip(test.labels.tolist(), pixels[len(train) :], strict=True),
            image_size=settings.image_size,
            num_classes=num_classes,
        )
    return Splits(train, test, tuple(skipped), fingerprint)


def hold_out(images: EncodedImages, test_fraction: float | None, *, where: str) -> tuple[EncodedImages, EncodedImages]:
    """Divides a split into training and test images, `test_fraction` of each class, at least one."""
    if test_fraction is None:
        raise ValueError(
            f"{where} has no test split. Choose one, or set data.test_fraction=0.1 to hold out a share of the images."
        )
    if not 0 < test_fraction < 1:
        raise ValueError(f"data.test_fraction is {test_fraction}. Give a fraction between 0 and 1, both excluded.")
    chosen = select_stratified(images.labels, test_fraction, "test split")
    rest = torch.ones(len(images), dtype=torch.bool)
    rest[chosen] = False
    train = images.select(rest.nonzero().flatten())
    lost = sorted({*images.labels.tolist()} - {*train.labels.tolist()})
    if lost:
        raise ValueError(
            f"{where} has one image only of the class with label {lost[0]}, which cannot be in both splits. Give each "
            "class at least two images, or lower data.test_fraction."
        )
    return train, images.select(chosen)


def without(images: EncodedImages, kept: Sequence[bool], *, split: str, skipped: dict[str, str]) -> EncodedImages:
    """The images that can be read. Raises ValueError where a class loses all of its images."""
    if all(kept):
        return images
    rest = images.select(torch.tensor(kept).nonzero().flatten())
    lost = sorted({*images.labels.tolist()} - {*rest.labels.tolist()})
    if lost:
        what = "image" if len(rest) == 0 else f"image of the class with label {lost[0]}"
        first, reason = next(iter(skipped.items()))
        raise ValueError(
            f"data.on_error=skip leaves the {split} split without any {what}. The first: {first}: {reason} Repair "
            "these images, or remove the whole class from every split."
        )
    return rest


def encoded_fingerprint(
    train: EncodedImages, test: EncodedImages, settings: ContainerSettings, *, num_classes: int
) -> str:
    """The digest of the images as they are stored, of all or of at most 1000, and of all labels."""
    digest = hashlib.sha256(f"encoded\0{REVISION}\0{settings.image_size}\0{num_classes}\n".encode())
    both = [(images, index) for images in (train, test) for index in range(len(images))]
    places = list(map(str, range(len(both))))
    chosen = {*(fingerprints.spread_evenly(places, MAX_SAMPLED) if settings.fingerprint == "sample" else places)}

    def visit(place: str) -> str:
        images, index = both[int(place)]
        try:
            return fingerprints.content_digest(images.encoded(index)[0]) if place in chosen else ""
        except ValueError as error:
            raise ValueError(
                f"Cannot read {images.describe(index)}: {error} Repair or remove it; data.check=decode finds all of "
                "them."
            ) from error

    contents = iter(for_each(places, visit, "Reading images"))
    for split, images in (("train", train), ("test", test)):
        for label in images.labels.tolist():
            digest.update(f"{split}\0{label}\0{next(contents)}\n".encode())
    return digest.hexdigest()
