"""Digests of files and of decoded images, by which data are identified."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from itertools import chain

from PIL import Image

REVISION = 1  # raise when `images_fingerprint` or `pixels_digest` change

CHOICES = ("auto", "sample", "content", "bytes")
MAX_SAMPLED = 1000  # files, spread evenly over the sorted list
PIECES, PIECE = 16, 4096  # of a file that is larger than both together, spread evenly; in bytes


def content_digest(content: bytes) -> str:
    """The digest of a whole file."""
    return hashlib.sha256(content).hexdigest()


def sample_digest(path: str) -> str:
    """The digest of 64 KiB of a file in pieces, first and last bytes included; of a smaller file that of its content.

    Raises OSError where it cannot be read.
    """
    size, digest = os.path.getsize(path), hashlib.sha256()
    with open(path, "rb") as file:
        if size <= PIECES * PIECE:
            return content_digest(file.read())
        for piece in range(PIECES):
            file.seek((size - PIECE) * piece // (PIECES - 1))
            digest.update(file.read(PIECE))
    return digest.hexdigest()


def spread_evenly(names: Sequence[str], count: int) -> list[str]:
    """At most `count` of the names, in equal steps, the first and the last included."""
    if len(names) <= count:
        return list(names)
    return [names[(len(names) - 1) * place // (count - 1)] for place in range(count)]


def pixels_digest(image: Image.Image) -> str:
    """The digest of an image's size and its decoded 8-bit RGB values, whatever format stored them."""
    return values_digest(image.width, image.height, image.tobytes())


def values_digest(
    width: int,
    height: int,
    values: bytes,  # of the pixels, row by row, three each
) -> str:
    """See `pixels_digest`."""
    return hashlib.sha256(f"{width}x{height}\0".encode() + values).hexdigest()


def images_fingerprint(
    train: Iterable[tuple[int, str]], test: Iterable[tuple[int, str]], *, image_size: int, num_classes: int
) -> str:
    """The digest of two splits by what is in them: each item's label and `pixels_digest`, in order.

    The same images, labels and order give the same digest, whatever container holds them.
    """
    digest = hashlib.sha256(f"images\0{REVISION}\0{image_size}\0{num_classes}\n".encode())
    lines = chain((("train", *item) for item in train), (("test", *item) for item in test))
    for split, label, pixels in lines:
        digest.update(f"{split}\0{label}\0{pixels}\n".encode())
    return digest.hexdigest()
