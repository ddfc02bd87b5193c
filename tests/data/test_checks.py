"""Reading image files: what is refused, with which reason, and the check of many."""

import struct
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from ldbench.data import checks
from ldbench.data.checks import check_images, describe_unreadable, read_image
from ldbench.data.transforms import UnsupportedBitDepth


def _noise(side: int = 24) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))


def png(width: int, height: int, *, depth: int, color: int, rows: bytes) -> bytes:
    """A PNG file made by hand."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", ["bmp", "gif", "jpg", "png", "ppm", "tif", "webp"])
def test_a_cut_file_is_refused_in_every_format(tmp_path, suffix):
    path = tmp_path / f"0.{suffix}"
    _noise().save(path)
    assert read_image(str(path)).size == (24, 24)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 3 // 4])
    with pytest.raises(ValueError, match=r"It is (damaged|truncated) \(.+\)\."):
        read_image(str(path))


def test_truncated_files_are_nowhere_let_through():
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png(30_000, 30_000, depth=8, color=2, rows=b""))
    with pytest.raises(ValueError, match="It has more than 178956970 pixels, like a decompression bomb"):
        read_image(str(tmp_path / "bomb.png"))


def test_16_bit_colors_lose_their_lower_byte_and_16_bit_grays_are_refused(tmp_path):
    (tmp_path / "colors.png").write_bytes(png(1, 1, depth=16, color=2, rows=b"\0\x12\xff\x34\xff\x56\xff"))
    assert read_image(str(tmp_path / "colors.png")).getpixel((0, 0)) == (0x12, 0x34, 0x56)
    (tmp_path / "grays.png").write_bytes(png(1, 1, depth=16, color=0, rows=b"\0\x12\xff"))
    with pytest.raises(
        UnsupportedBitDepth, match=r"It has 16-bit grays \(mode I;16\), more than 8 bits.* Convert it to 8 bits first\."
    ):
        read_image(str(tmp_path / "grays.png"))


def test_of_several_frames_the_first_is_taken(tmp_path):
    red, blue = (Image.new("RGB", (4, 4), color) for color in ("red", "blue"))
    red.save(tmp_path / "0.gif", save_all=True, append_images=[blue])
    assert read_image(str(tmp_path / "0.gif")).getpixel((0, 0)) == (255, 0, 0)


def test_damage_of_any_kind_is_a_sentence(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "0"
    for suffix in ("bmp", "gif", "jpg", "png", "webp"):
        _noise(8).save(tmp_path / f"whole.{suffix}")
        whole = np.frombuffer((tmp_path / f"whole.{suffix}").read_bytes(), dtype=np.uint8)
        for _ in range(40):
            broken = whole.copy()
            broken[rng.integers(0, min(len(whole), 200), 4)] = rng.integers(0, 256, 4)
            path.write_bytes(broken.tobytes())
            try:
                read_image(str(path))
            except ValueError as error:
                assert str(error).startswith(("It is ", "It has "))  # noqa: PT017


@pytest.fixture
def hundred(tmp_path) -> tuple[Path, list[str]]:
    """A hundred files, every tenth of which is no image."""
    names = [f"{'a' if i % 2 else 'b'}/{i:02}.png" for i in range(100)]
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    for i, name in enumerate(names):
        _noise(4).save(tmp_path / name) if i % 10 else (tmp_path / name).write_text("text")
    return tmp_path, names


def test_all_unreadable_files_are_found_in_the_order_given(hundred):
    root, names = hundred
    (root / names[33]).unlink()
    unreadable = check_images(str(root), names).unreadable
    assert list(unreadable) == [name for i, name in enumerate(names) if i % 10 == 0 or i == 33]
    assert unreadable[names[0]] == "It is not an image that Pillow knows."
    assert unreadable[names[33]] == "There is no such file."
    assert check_images(str(root), []).unreadable == {}


def test_the_first_five_are_listed_and_the_rest_counted(hundred):
    root, names = hundred
    unreadable = check_images(str(root), names).unreadable
    lines = describe_unreadable(str(root), unreadable, num_files=100).splitlines()
    assert lines[0] == f"10 of 100 images in {root} cannot be read:"
    assert lines[1:6] == [f"  {names[i]}: It is not an image that Pillow knows." for i in (0, 10, 20, 30, 40)]
    assert lines[6:] == ["  and 5 more", "Repair or remove them, or set data.on_error=skip to leave them out."]
    assert "more" not in describe_unreadable(str(root), dict(list(unreadable.items())[:5]), num_files=100)


def test_each_file_is_decoded_once_and_by_more_than_one_thread(hundred, monkeypatch):
    root, names = hundred
    seen, meeting = [], threading.Barrier(2)

    def read(path: str, content: bytes) -> None:
        seen.append(Path(path).relative_to(root).as_posix())
        if len(seen) <= 2:
            meeting.wait(timeout=20)  # two threads stand here, or the barrier breaks

    monkeypatch.setattr(checks, "read_image", read)
    monkeypatch.setattr(checks.os, "cpu_count", lambda: 2)
    assert check_images(str(root), names).unreadable == {}
    assert sorted(seen) == sorted(names)


@pytest.mark.parametrize(("terminal", "few", "shown"), [(True, 99, True), (True, 100, False), (False, 99, False)])
def test_a_bar_is_shown_on_a_terminal_for_many_files(hundred, monkeypatch, capsys, terminal, few, shown):
    root, names = hundred
    monkeypatch.setattr(checks, "WITH_BAR", few)
    monkeypatch.setattr(checks.sys.stderr, "isatty", lambda: terminal)
    check_images(str(root), names)
    output = capsys.readouterr()
    assert output.out == ""
    assert ("Checking images" in output.err) == shown


def test_an_interrupted_check_does_not_go_on(hundred, monkeypatch):
    root, names = hundred
    seen = []

    def read(path: str, content: bytes) -> None:
        seen.append(path)
        if len(seen) == 1:
            raise KeyboardInterrupt
        time.sleep(0.05)

    monkeypatch.setattr(checks, "read_image", read)
    monkeypatch.setattr(checks, "CHUNK", 1)
    monkeypatch.setattr(checks.os, "cpu_count", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        check_images(str(root), names)
    assert len(seen) < len(names) // 2
