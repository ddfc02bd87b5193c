"""Decodes all images of a set once: which cannot be read, and the digests of the others' pixels, kept on disk."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from PIL import Image

from ldbench.data.checks import for_each, known_formats
from ldbench.data.fingerprints import REVISION, pixels_digest
from ldbench.io.files import atomic_write, digest

HEADER = f"ldbench pixel digests {REVISION}\n".encode()


@dataclass(frozen=True)
class Decoded:
    """What decoding all of some images has shown, by their positions."""

    unreadable: dict[int, str]  # the reasons
    digests: dict[int, str]  # `pixels_digest` of all others


def decode_all(
    items: Sequence[str],  # what identifies each image in its source, with all that changes when it is replaced; unique
    decode: Callable[[int], Image.Image],
    *,
    source: Sequence[str],  # what identifies where they are
    cache: Path | None,
) -> Decoded:
    """Decodes images of the given positions in `items`, those that `cache` knows not.

    `decode` raises ValueError for an image that cannot be read. Of two processes with one cache, one decodes.
    """
    assert len({*items}) == len(items), "two images of one identity"
    known_formats()  # loads Pillow's plug-ins, which is not thread-safe
    path = None if cache is None else cache / f"pixels-{digest(list(source))[:24]}.txt"
    with locked(path):
        known = {} if path is None else read(path)
        missing = [place for place, item in enumerate(items) if item not in known]

        def visit(place: int) -> tuple[str, str]:
            try:
                return "", pixels_digest(decode(place))
            except ValueError as error:
                return str(error), ""

        unreadable, found = {}, {}
        for place, (reason, pixels) in zip(missing, for_each(missing, visit, "Decoding images"), strict=True):
            if pixels:
                found[items[place]] = pixels
            else:
                unreadable[place] = reason
        known |= found
        if path is not None and found:
            write(path, known)
    return Decoded(unreadable, {place: known[item] for place, item in enumerate(items) if place not in unreadable})


@contextmanager
def locked(path: Path | None) -> Iterator[None]:
    """Within it no other process uses a file. Does nothing without one."""
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        yield


def read(path: Path) -> dict[str, str]:
    """The digests in a file by item; none where it is missing, of another revision, or damaged."""
    try:
        header, *lines = path.read_bytes().splitlines(keepends=True)
    except (FileNotFoundError, ValueError):
        return {}
    if header != HEADER:
        return {}
    pairs = (line.rstrip(b"\n").split(b" ", 1) for line in lines if line.endswith(b"\n"))
    return {os.fsdecode(pair[1]): pair[0].decode() for pair in pairs if len(pair) == 2 and len(pair[0]) == 64}


def write(path: Path, digests: dict[str, str]) -> None:
    """Writes the digests of items, atomically. Items whose names break lines are left out."""
    with atomic_write(path) as scratch, scratch.open("wb") as file:
        file.write(HEADER)
        for item, pixels in digests.items():
            name = os.fsencode(item)
            if len(name.splitlines()) == 1:
                file.write(pixels.encode() + b" " + name + b"\n")
