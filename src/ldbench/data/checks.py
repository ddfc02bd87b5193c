"""Image files that can be read, and what is wrong with those that cannot."""

import os
import struct
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image, UnidentifiedImageError
from rich.console import Console
from rich.progress import Progress

from ldbench.data.transforms import TooDeep, to_rgb

FORMATS = (
    "BMP",
    "GIF",
    "JPEG",
    "PNG",
    "PPM",
    "TIFF",
    "WEBP",
)  # not EPS, for which Pillow starts Ghostscript, whatever the name
THINNEST = 200  # width over height, or the other way: enlarged to a square's side, a thinner one would fill the memory
MOST_THREADS = 8
CHUNK = 32  # files that a thread takes at a time
WITH_BAR = 500  # more files than this are worth a progress bar
NUM_TOLD = 5

BROKEN = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    LookupError,
    TypeError,
    ArithmeticError,
    struct.error,
)  # what Pillow raises on such files


class NoPicture(ValueError):
    """A file is no picture that can be taken. The message is a sentence about it."""


def read_image(path: str) -> Image.Image:
    """The picture in a file, in 8-bit RGB as `to_rgb` has it; of several frames the first.

    Raises ValueError with the reason as a sentence where it cannot be read. A truncated file is refused: half a picture is none.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # a pipe would be read for ever
            raise NoPicture("It is no file.")
        with Image.open(path, formats=FORMATS) as image:
            if max(image.size) > THINNEST * min(image.size):
                raise NoPicture(f"It has {image.width} x {image.height} pixels: a line and no picture.")
            return to_rgb(image)
    except (TooDeep, NoPicture):
        raise
    except FileNotFoundError as error:
        raise ValueError("There is no such file.") from error
    except PermissionError as error:
        raise ValueError("There is no permission to read it.") from error
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"It has more than {2 * Image.MAX_IMAGE_PIXELS} pixels, as a decompression bomb would. Make it smaller."
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

    Each file is decoded once, by as many threads as there are cores, at most 8. On a terminal a bar on stderr shows how far it is.
    """
    Image.init()  # loads Pillow's plug-ins, which is not safe to do from several threads
    chunks = [names[start : start + CHUNK] for start in range(0, len(names), CHUNK)]
    found: dict[str, str] = {}
    pool = ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1))
    bar = Progress(
        console=Console(stderr=True), transient=True, disable=len(names) <= WITH_BAR or not sys.stderr.isatty()
    )
    try:
        with bar:
            for refused in bar.track(
                pool.map(lambda chunk: _refused(root, chunk), chunks), total=len(chunks), description="Checking images"
            ):
                found |= refused
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the rest
    return found


def describe_unreadable(root: str, found: dict[str, str], *, num_files: int) -> str:
    """A sentence about unreadable files, the first five with their reasons, and what to do."""
    lines = [f"  {name}: {reason}" for name, reason in list(found.items())[:NUM_TOLD]]
    rest = [f"  and {len(found) - NUM_TOLD} more"] if len(found) > NUM_TOLD else []
    cure = "Repair or remove them, or set data.on_error=skip to leave them out."
    return "\n".join([f"{len(found)} of {num_files} images in {root} cannot be read:", *lines, *rest, cure])


def _refused(root: str, names: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            read_image(os.path.join(root, name))
        except ValueError as error:
            found[name] = str(error)
    return found
