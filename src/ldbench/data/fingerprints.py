"""Digests of the contents of files, by which a folder of images is identified."""

import hashlib
import os
from collections.abc import Sequence

CHOICES = ("auto", "sample", "content")
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
