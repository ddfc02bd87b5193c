"""Decodes all images of a set once: which cannot be read, and the digests of the others' pixels, kept on disk."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from filelock import FileLock
from PIL import Image

from ldbench.data.checks import known_formats, results_of
from ldbench.data.fingerprints import REVISION, pixels_digest
from ldbench.io.files import add_path_to_errors, atomic_write, digest

log = logging.getLogger(__name__)

HEADER = f"ldbench pixel digests {REVISION}\n".encode()
BATCH = 256  # images whose digests are kept at a time: an interruption loses as many


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

    `decode` raises ValueError for an image that cannot be read. Of two processes with one cache, one decodes, and where
    one is interrupted the next goes on. A cache that cannot be written is read, and a warning says so.
    """
    assert len({*items}) == len(items), "two images of one identity"
    known_formats()  # loads Pillow's plug-ins, which is not thread-safe
    path = None if cache is None else cache / f"pixels-{digest(list(source))[:24]}.txt"
    known = {} if path is None else read(path)  # without the lock: lines are added to it, or it is replaced whole
    unreadable: dict[int, str] = {}
    if any(item not in known for item in items):
        with locked(path) as writable:
            kept = KeptDigests(writable, known if writable is None else read(writable))
            missing = [place for place, item in enumerate(items) if item not in kept.known]

            def visit(place: int) -> tuple[int, str, str]:
                try:
                    return place, "", pixels_digest(decode(place))
                except ValueError as error:
                    return place, str(error), ""

            with closing(results_of(missing, visit, "Decoding images")) as results:
                while batch := [*islice(results, BATCH)]:
                    kept.add({items[place]: pixels for place, _, pixels in batch if pixels})
                    unreadable |= {place: reason for place, reason, pixels in batch if not pixels}
            known = kept.known
    return Decoded(unreadable, {place: known[item] for place, item in enumerate(items) if place not in unreadable})


class KeptDigests:
    """The digests of items, in a file that keeps what is added although the process is killed later.

    Without a path, and after an error, which a warning names, what is added is not kept.
    """

    def __init__(self, path: Path | None, known: dict[str, str]):
        self.path = path
        self.known = known
        self._written = False

    def add(self, digests: Mapping[str, str]) -> None:
        """Adds digests of items that are not known."""
        self.known |= digests
        if self.path is None or not digests:
            return
        try:
            if self._written:
                append(self.path, digests)
            else:  # anew: what is there may be another user's, of another revision, or end within a line
                write(self.path, self.known)
            self._written = True
        except OSError as error:
            warn_unwritable(self.path, error)
            self.path = None


@contextmanager
def locked(path: Path | None) -> Iterator[Path | None]:
    """Within it no other process writes a file. Gives its path, None without one and where it cannot be locked, which a
    warning says.
    """
    if path is None:
        yield None
        return
    lock = FileLock(f"{path}.lock", mode=0o666)
    writable: Path | None = path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:  # somebody else's folder, or a full disk
        warn_unwritable(path, error)
        writable = None
    try:
        yield writable
    finally:
        lock.release()


def warn_unwritable(path: Path, error: OSError) -> None:
    """Logs that digests are not kept, and why."""
    log.warning(
        "%s cannot be written (%s): the digests of decoded images are not kept, and the next start decodes them again. "
        "Set data.cache_dir to a folder that can be written.",
        *(path.parent, error.strerror or error),
    )


def read(path: Path) -> dict[str, str]:
    """The digests in a file by item; none where it cannot be read or is of another revision.

    A line that is damaged or not yet whole is left out.
    """
    try:
        header, *lines = path.read_bytes().splitlines(keepends=True)
    except (OSError, ValueError):
        return {}
    if header != HEADER:
        return {}
    pairs = (line.rstrip(b"\n").split(b" ", 1) for line in lines if line.endswith(b"\n"))
    whole = (pair for pair in pairs if len(pair) == 2 and len(pair[0]) == 64 and pair[0].isalnum())
    return {os.fsdecode(name): pixels.decode() for pixels, name in whole}


def write(path: Path, digests: Mapping[str, str]) -> None:
    """Writes the digests of items, atomically. Items whose names break lines are left out."""
    with atomic_write(path) as scratch:
        scratch.write_bytes(HEADER + lines_of(digests))


def append(path: Path, digests: Mapping[str, str]) -> None:
    """Adds the digests of items to a file that was written."""
    with add_path_to_errors(path), path.open("ab") as file:
        file.write(lines_of(digests))


def lines_of(digests: Mapping[str, str]) -> bytes:
    """The lines of items in a file, without those whose names break lines."""
    names = ((os.fsencode(item), pixels.encode()) for item, pixels in digests.items())
    return b"".join(pixels + b" " + name + b"\n" for name, pixels in names if len(name.splitlines()) == 1)
