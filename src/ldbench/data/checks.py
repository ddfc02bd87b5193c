"""Reads image files, and finds those that cannot be read."""

import os
import struct
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image, UnidentifiedImageError
from rich.console import Console
from rich.progress import Progress

from ldbench.data.transforms import UnsupportedBitDepth, to_rgb

# Not EPS: Pillow would run Ghostscript for it, whatever the file's name.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_ASPECT = 200  # width over height or the inverse: a thinner image would fill the memory once enlarged to a square
MAX_THREADS = 8
CHUNK = 32  # files that a thread takes at a time
WITH_BAR = 500  # with more files than this a progress bar is shown
MAX_LISTED = 5

# What Pillow raises for damaged files.
BROKEN = (OSError, EOFError, SyntaxError, ValueError, LookupError, TypeError, ArithmeticError, struct.error)


class NotAnImage(ValueError):
    """A file that cannot be used as an image. The message is a sentence."""


def read_image(path: str) -> Image.Image:
    """The image in a file, as 8-bit RGB (see `to_rgb`); of several frames the first.

    Raises ValueError with the reason as a sentence if it cannot be read. A truncated file is refused.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # reading a pipe would never end
            raise NotAnImage("It is not a regular file.")
        with Image.open(path, formats=FORMATS) as image:
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
            "It is empty, 0 bytes long." if os.path.getsize(path) == 0 else "It is not an image that Pillow knows."
        ) from error
    except BROKEN as error:
        what = "It is truncated" if "truncated" in str(error).lower() else "It is damaged"
        raise ValueError(f"{what} ({error}).") from error


def find_unreadable(root: str, names: Sequence[str]) -> dict[str, str]:
    """The files below `root` that `read_image` refuses, name -> reason, in the order of `names`.

    Each file is decoded once, by as many threads as there are cores, at most 8. A terminal shows a progress bar on
    stderr.
    """
    Image.init()  # loads Pillow's plug-ins, which is not thread-safe
    chunks = [names[start : start + CHUNK] for start in range(0, len(names), CHUNK)]
    unreadable: dict[str, str] = {}
    pool = ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1))
    bar = Progress(
        console=Console(stderr=True), transient=True, disable=len(names) <= WITH_BAR or not sys.stderr.isatty()
    )
    try:
        with bar:
            results = pool.map(lambda chunk: _find_unreadable(root, chunk), chunks)
            for found in bar.track(results, total=len(chunks), description="Checking images"):
                unreadable |= found
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the rest
    return unreadable


def describe_unreadable(root: str, unreadable: dict[str, str], *, num_files: int) -> str:
    """An error message about unreadable files: the first five with their reasons, and what to do."""
    lines = [f"  {name}: {reason}" for name, reason in list(unreadable.items())[:MAX_LISTED]]
    rest = [f"  and {len(unreadable) - MAX_LISTED} more"] if len(unreadable) > MAX_LISTED else []
    cure = "Repair or remove them, or set data.on_error=skip to leave them out."
    return "\n".join([f"{len(unreadable)} of {num_files} images in {root} cannot be read:", *lines, *rest, cure])


def _find_unreadable(root: str, names: Sequence[str]) -> dict[str, str]:
    unreadable = {}
    for name in names:
        try:
            read_image(os.path.join(root, name))
        except ValueError as error:
            unreadable[name] = str(error)
    return unreadable
