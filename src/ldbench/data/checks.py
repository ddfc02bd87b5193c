"""Reads image files, and finds those that cannot be read."""

import io
import os
import struct
import sys
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from PIL import Image, UnidentifiedImageError
from rich.console import Console
from rich.progress import Progress

from ldbench.data.fingerprints import content_digest
from ldbench.data.transforms import UnsupportedBitDepth, to_rgb

Item = TypeVar("Item")
Result = TypeVar("Result")

# Not EPS: Pillow would run Ghostscript for it, whatever the file's name.
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TGA", "TIFF", "WEBP")
CHECKS = ("decode", "none")
ON_ERROR = ("raise", "skip")
MAX_ASPECT = 200  # width over height or the inverse: a thinner image would fill the memory once enlarged to a square
MAX_THREADS = 8
CHUNK = 32  # files that a thread takes at a time
WITH_BAR = 500  # with more files than this a progress bar is shown
MAX_LISTED = 5

# What Pillow raises for damaged files.
BROKEN = (OSError, EOFError, SyntaxError, ValueError, LookupError, TypeError, ArithmeticError, struct.error)


class NotAnImage(ValueError):
    """A file that cannot be used as an image. The message is a sentence."""


@dataclass(frozen=True)
class Checked:
    """What decoding all of some files has shown."""

    unreadable: dict[str, str]  # name -> reason, in the order of the names
    digests: dict[str, str]  # name -> digest of the content, of all others


def read_image(path: str, content: bytes | None = None) -> Image.Image:
    """The image in a file, as 8-bit RGB (see `to_rgb`); of several frames the first. `content`: where it is read
    already.

    Raises ValueError with the reason as a sentence if it cannot be read. A truncated file is refused.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # reading a pipe would never end
            raise NotAnImage("It is not a regular file.")
        with Image.open(path if content is None else io.BytesIO(content), formats=known_formats()) as image:
            if max(image.size) > MAX_ASPECT * min(image.size):
                raise NotAnImage(f"It has {image.width} x {image.height} pixels, too thin for an image.")
            return to_rgb(image)
    except (UnsupportedBitDepth, NotAnImage):
        raise
    except FileNotFoundError as error:
        raise ValueError("There is no such file.") from error
    except PermissionError as error:
        raise ValueError("There is no permission to read it.") from error
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"It has more than {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels, like a decompression bomb. Make it smaller."
        ) from error
    except UnidentifiedImageError as error:
        raise ValueError(
            "It is empty, 0 bytes long."
            if (os.path.getsize(path) if content is None else len(content)) == 0
            else "It is not an image that Pillow knows."
        ) from error
    except BROKEN as error:
        what = "It is truncated" if "truncated" in str(error).lower() else "It is damaged"
        raise ValueError(f"{what} ({error}).") from error


@cache
def known_formats() -> tuple[str, ...]:
    """The formats that this Pillow reads: some builds lack AVIF or JPEG 2000."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def check_images(root: str, names: Sequence[str]) -> Checked:
    """Reads and decodes each file below `root` once: which ones `read_image` refuses, and what the others contain."""
    known_formats()  # loads Pillow's plug-ins, which is not thread-safe
    unreadable, digests = {}, {}
    for name, (reason, digest) in zip(names, for_each_file(root, names, check_image, "Checking images"), strict=True):
        if reason is None:
            digests[name] = digest
        else:
            unreadable[name] = reason
    return Checked(unreadable, digests)


def check_image(path: str) -> tuple[str | None, str]:
    """Why a file cannot be read as an image, None if it can, and the digest of its content."""
    content = b""
    try:
        if os.path.isfile(path) and os.access(path, os.R_OK):
            with open(path, "rb") as file:
                content = file.read()
            read_image(path, content)
        else:
            read_image(path)
    except ValueError as error:
        return str(error), ""
    except OSError as error:
        return f"It cannot be read ({error.strerror}).", ""
    return None, content_digest(content)


def for_each_file(root: str, names: Sequence[str], visit: Callable[[str], Result], description: str) -> list[Result]:
    """What a function returns for the path of each file below `root`, in the order of the names (see `for_each`)."""
    return for_each(names, lambda name: visit(os.path.join(root, name)), description)


def for_each(
    items: Sequence[Item], visit: Callable[[Item], Result], description: str, *, chunk_size: int = CHUNK
) -> list[Result]:
    """What a function returns for each item, in their order.

    It runs in as many threads as there are cores, at most 8. A terminal shows a progress bar on stderr.
    """
    return list(results_of(items, visit, description, chunk_size=chunk_size))


def results_of(
    items: Sequence[Item], visit: Callable[[Item], Result], description: str, *, chunk_size: int = CHUNK
) -> Generator[Result, None, None]:
    """As `for_each`, but each result as soon as those before it are known. Close it where it is left early."""
    chunks = [items[start : start + chunk_size] for start in range(0, len(items), chunk_size)]
    pool = ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1))
    bar = Progress(
        console=Console(stderr=True), transient=True, disable=len(items) <= WITH_BAR or not sys.stderr.isatty()
    )
    try:
        with bar:
            found = pool.map(lambda chunk: [visit(item) for item in chunk], chunks)
            for results in bar.track(found, total=len(chunks), description=description):
                yield from results
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the rest


def validate_settings(
    *, check: str, on_error: str, fingerprint: str, fingerprint_choices: Sequence[str], image_size: int
) -> None:
    """Raises ValueError for settings of data that do not exist, or do not fit each other."""
    for key, choice, known in (
        ("check", check, CHECKS),
        ("on_error", on_error, ON_ERROR),
        ("fingerprint", fingerprint, fingerprint_choices),
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


def describe_unreadable(root: str, unreadable: dict[str, str], *, num_files: int) -> str:
    """An error message about unreadable files: the first five with their reasons, and what to do."""
    lines = [f"  {name}: {reason}" for name, reason in list(unreadable.items())[:MAX_LISTED]]
    rest = [f"  and {len(unreadable) - MAX_LISTED} more"] if len(unreadable) > MAX_LISTED else []
    cure = "Repair or remove them, or set data.on_error=skip to leave them out."
    return "\n".join([f"{len(unreadable)} of {num_files} images in {root} cannot be read:", *lines, *rest, cure])
