"""Untrusted folders of images: no program is started, no pipe is waited for, no link is followed in a cycle."""

import io
import os
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from ldbench.data.images import Folder

SETTINGS = {
    "name": "pets",
    "layout": "auto",
    "image_size": 8,
    "test_fraction": 0.25,
    "label_safe_flips": True,
    "check": "decode",
}
SETTINGS |= {"on_error": "raise", "subset": None, "seed": 0}
SETTINGS |= {"train_folder": None, "test_folder": None, "fingerprint": "auto", "cache_dir": None}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of four images each."""
    for label in ("cat", "dog"):
        (tmp_path / "pets" / label).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(np.full((9, 9, 3), 20 * i, np.uint8)).save(tmp_path / "pets" / label / f"{i}.png")
    return tmp_path / "pets"


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG by hand: what its header says, and these chunks."""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + b"".join(chunks)
        + chunk(b"IEND", b"")
    )


def bmp(width: int, height: int) -> bytes:
    return (
        b"BM"
        + struct.pack("<IHHI", 54, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    )


def eps(trap: Path) -> bytes:
    """A PostScript program that would write a file, after the header of an image."""
    head = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    program = head + f"({trap}) (w) file closefile\nshowpage\n%%EOF\n"
    return program.encode()


def line(path: Path) -> None:
    Image.new("L", (100_000, 1)).save(path)


def content(make: Callable[[Path], bytes] | bytes, suffix: str = "png") -> Callable[[Path, Path], None]:
    return lambda root, trap: (
        (root / "cat" / f"x.{suffix}").write_bytes(make if isinstance(make, bytes) else make(trap)) and None
    )


def looped(root: Path, trap: Path) -> None:
    (root / "cat" / "more").symlink_to(root / "cat")
    (root / "cat" / "most").symlink_to(root / "cat")


ZEROS = zlib.compress(bytes(50_000_000))
CASES: dict[str, Callable[[Path, Path], object]] = {
    "a program in PostScript": content(eps),
    "a program in PostScript named jpg": content(eps, "jpg"),
    "a page of the web": content(b"<html><script>"),
    "a drawing with a script": content(b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"),
    "an archive": content(b"PK\x03\x04" + bytes(100)),
    "a program": content(b"\x7fELF" + bytes(100)),
    "a pickle": content(b"\x80\x04cposix\nsystem\n."),
    "a header of ten billion px": content(png(100_000, 100_000)),
    "a bitmap of ten billion px": content(bmp(100_000, 100_000), "bmp"),
    "a picture of no width": content(png(0, 9)),
    "a bitmap below zero": content(bmp(-5, 9), "bmp"),
    "text that fills the memory": content(png(9, 9, chunk(b"zTXt", b"note\0\0" + ZEROS))),
    "a profile that fills the memory": content(png(9, 9, chunk(b"iCCP", b"note\0\0" + ZEROS))),
    "pixels that do not end": content(png(9, 9, chunk(b"IDAT", b"\x78\x9c" + bytes(50)))),
    "a head alone": content(b"\x89PNG\r\n\x1a\n"),
    "a GIF without frames": content(b"GIF89a\x08\x00\x08\x00\x00\x00\x00;", "gif"),
    "a TIFF with cyclic offsets": content(b"II*\x00\x08\x00\x00\x00\x00\x00\x08\x00\x00\x00", "tif"),
    "a PPM in words": content(b"P6\n9 nine\n255\n", "ppm"),
    "a line a hundred thousand px long": lambda root, trap: line(root / "cat" / "x.png"),
    "a pipe": lambda root, trap: os.mkfifo(root / "cat" / "x.png"),
    "an endless device": lambda root, trap: (root / "cat" / "x.png").symlink_to("/dev/zero"),
    "a link to itself": lambda root, trap: (root / "cat" / "x.png").symlink_to(root / "cat" / "x.png"),
    "a link to nowhere": lambda root, trap: (root / "cat" / "x.png").symlink_to(root / "nowhere.png"),
    "links that go round": looped,
    "a link to the folder above": lambda root, trap: (root / "cat" / "up").symlink_to(root),
    "a secret named png": lambda root, trap: (root / "cat" / "x.png").symlink_to("/etc/passwd"),
}


@pytest.mark.parametrize("spoil", CASES.values(), ids=CASES.keys())
def test_a_folder(
    spoil: Callable[[Path, Path], object], root: Path, trap: Path, refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", sys.executable)
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: trap.touch())
    Folder(**SETTINGS, root=str(root))
    spoil(root, trap)
    refused(lambda: Folder(**SETTINGS, root=str(root)), root)


LISTS = {
    "a path that climbs out": "../../etc/passwd",
    "another alphabet": b"\xff\xfe\x00",
    "an index of 5000 digits": "9" * 5000,
    "a negative index": "-1",
    "a program": "$(touch x)",
    "nothing": "",
}


@pytest.mark.parametrize("content", LISTS.values(), ids=LISTS.keys())
def test_a_list_of_images(content: str | bytes, root: Path, tmp_path: Path, refused) -> None:
    path = tmp_path / "subset.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(lambda: Folder(**SETTINGS | {"subset": str(path)}, root=str(root)), path)


def annotations(text: bytes) -> Callable[[Path], object]:
    return lambda root: (root / "val" / "val_annotations.txt").write_bytes(text)


ANNOTATIONS = {
    "an image that climbs out": annotations(b"../../train/cat/0.png\tcat\t0\n"),
    "a class that climbs out": annotations(b"0.png\t../../etc\t0\n"),
    "another alphabet": annotations(b"\xff\xfe\x00\t"),
    "an image twice": annotations(b"0.png\tcat\t0\n0.png\tdog\t0\n"),
    "no class": annotations(b"0.png\n"),
}


@pytest.mark.parametrize("spoil", ANNOTATIONS.values(), ids=ANNOTATIONS.keys())
def test_annotations(spoil: Callable[[Path], object], root: Path, refused) -> None:
    (root / "val" / "images").mkdir(parents=True)
    (root / "train").mkdir()
    for label in ("cat", "dog"):
        (root / label).rename(root / "train" / label)
    Image.new("RGB", (9, 9)).save(root / "val" / "images" / "0.png")
    spoil(root)
    refused(lambda: Folder(**SETTINGS | {"test_fraction": None}, root=str(root)), root / "val" / "val_annotations.txt")


def test_a_jpeg_of_several_pictures_is_still_read(root: Path) -> None:
    held = io.BytesIO()
    Image.new("RGB", (9, 9)).save(held, "MPO", save_all=True, append_images=[Image.new("RGB", (9, 9))])
    (root / "cat" / "x.jpg").write_bytes(held.getvalue())
    assert len(Folder(**SETTINGS, root=str(root)).train) == 7
