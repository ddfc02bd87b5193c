"""Untrusted archives in ADM's layout: no pickle is opened, nothing is unpacked to disk, headers are checked against
sizes.
"""

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.lib import format as npy

from ldbench.metrics import adm_npz


class Payload:
    """Unpickles as a call."""

    def __init__(self, trap: Path):
        self.trap = trap

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.trap}",)


def array(shape: tuple[int, ...], descr: str, content: bytes) -> bytes:
    """An .npy file with a header of its own."""
    file = io.BytesIO()
    npy.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue() + content


def archive(*members: tuple[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Callable[[Path, Path], None]:
    def make(path: Path, trap: Path) -> None:
        with zipfile.ZipFile(path, "w", compression) as file:
            for name, content in members:
                file.writestr(name, content)

    return make


def bomb(path: Path, trap: Path) -> None:
    """Two statistics compressed to a thousandth of their size."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, shape in (("mu", (6000,)), ("sigma", (6000, 6000))):
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                npy.write_array_header_1_0(member, {"descr": "<f8", "fortran_order": False, "shape": shape})
                for _ in range(shape[0]):
                    member.write(bytes(8 * np.prod(shape[1:], dtype=int)))


def spoiled(path: Path, trap: Path) -> None:
    """A member whose sum is another."""
    np.savez(path, arr_0=np.zeros((2, 4, 4, 3), np.uint8), mu=np.zeros(2), sigma=np.eye(2))
    content = bytearray(path.read_bytes())
    for name in (b"arr_0.npy", b"mu.npy", b"sigma.npy"):
        content[content.index(b"\x93NUMPY", content.index(name)) + 130] ^= 255
    path.write_bytes(content)


def locked(path: Path, trap: Path) -> None:
    """An archive that says it is encrypted."""
    np.savez(path, arr_0=np.zeros((2, 4, 4, 3), np.uint8), mu=np.zeros(2), sigma=np.eye(2))
    content = bytearray(path.read_bytes())
    for start in (b"PK\x01\x02", b"PK\x03\x04"):
        offset = content.find(start)
        while offset >= 0:
            content[offset + (8 if start == b"PK\x01\x02" else 6)] |= 1
            offset = content.find(start, offset + 1)
    path.write_bytes(content)


def both(name: str, content: bytes) -> tuple[tuple[str, bytes], ...]:
    """The same content as images and as a mean."""
    return (("arr_0.npy", content), ("mu.npy", content), ("sigma.npy", content))


CASES: dict[str, Callable[[Path, Path], object]] = {
    "objects with a payload": lambda p, trap: np.savez(
        p, arr_0=np.array([Payload(trap)]), mu=np.array([Payload(trap)]), sigma=np.array([1])
    ),
    "a pickle for an archive": lambda p, trap: p.write_bytes(b"\x80\x04cposix\nsystem\n."),
    "a page of the web": lambda p, trap: p.write_text("<html>"),
    "nothing": lambda p, trap: p.write_bytes(b""),
    "a pipe": lambda p, trap: os.mkfifo(p),
    "a folder": lambda p, trap: p.mkdir(),
    "names that climb out": archive(("../../../tmp/x.npy", b""), ("/etc/x.npy", b"")),
    "a header that promises a trillion": archive(*both("", array((10**6, 10**6), "<f8", b""))),
    "images of a million px": archive(*both("", array((1, 10**6, 10**6, 3), "|u1", bytes(10)))),
    "a shape below zero": archive(*both("", array((-1, 4, 4, 3), "|u1", bytes(48)))),
    "a shape of nothing": archive(*both("", array((0, 4, 4, 3), "|u1", b""))),
    "a header in another language": archive(
        *both("", b"\x93NUMPY\x01\x00\x20\x00" + b"__import__('os').system('true')  ")
    ),
    "a header nested without end": archive(*both("", b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535)),
    "an endless header": archive(*both("", b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b" " * 10_000)),
    "a version of the future": archive(*both("", b"\x93NUMPY\x09\x00\x10\x00" + b" " * 16)),
    "no array": archive(*both("", b"hello")),
    "an empty member": archive(*both("", b"")),
    "texts": archive(*both("", array((1,), "<U4", bytes(16)))),
    "times": archive(*both("", array((1,), "<M8[s]", bytes(8)))),
    "complex numbers": archive(*both("", array((1,), "<c16", bytes(16)))),
    "fewer bytes than declared": archive(*both("", array((2, 4, 4, 3), "|u1", bytes(50)))),
    "more bytes than declared": archive(*both("", array((2, 4, 4, 3), "|u1", bytes(500)))),
    "a sum that is another": spoiled,
    "an encrypted archive": locked,
}


@pytest.mark.parametrize("spoil", CASES.values(), ids=CASES.keys())
def test_samples(spoil: Callable[[Path, Path], object], tmp_path: Path, trap: Path, refused) -> None:
    path = tmp_path / "samples.npz"
    spoil(path, trap)
    refused(lambda: list(adm_npz.read_images(path, 1)), path)


REFERENCES = {name: spoil for name, spoil in CASES.items() if name != "names that climb out"} | {
    "a decompression bomb": bomb
}


@pytest.mark.parametrize("spoil", REFERENCES.values(), ids=REFERENCES.keys())
def test_a_reference(spoil: Callable[[Path, Path], object], tmp_path: Path, trap: Path, refused) -> None:
    path = tmp_path / "reference.npz"
    spoil(path, trap)
    refused(lambda: adm_npz.read_statistics(path), path)
