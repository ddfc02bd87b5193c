"""Decoding all images once: digests that are known, errors, interruptions, several at once, folders of others."""

import os
import threading
from pathlib import Path

import pytest
from PIL import Image

from ldbench.data import pixel_digests
from ldbench.data.fingerprints import pixels_digest
from ldbench.data.pixel_digests import decode_all

ITEMS = [f"{i}.png 10 {i}" for i in range(6)]


def image(place: int) -> Image.Image:
    return Image.new("RGB", (3, 2), (place, 0, 0))


def test_images_are_decoded_unless_they_are_known(tmp_path):
    decoded: list[int] = []

    def decode(place: int) -> Image.Image:
        decoded.append(place)
        return image(place)

    first = decode_all(ITEMS[:4], decode, source=["here"], cache=tmp_path)
    assert first.digests == {place: pixels_digest(image(place)) for place in range(4)}
    second = decode_all(ITEMS, decode, source=["here"], cache=tmp_path)
    assert sorted(decoded) == list(range(6))
    assert second.digests == {place: pixels_digest(image(place)) for place in range(6)}
    decode_all(ITEMS, decode, source=["elsewhere"], cache=tmp_path)
    decode_all(ITEMS, decode, source=["here"], cache=None)
    assert len(decoded) == 18


def test_what_cannot_be_read_is_tried_again(tmp_path):
    def decode(place: int) -> Image.Image:
        if place % 2:
            raise ValueError(f"It is number {place}.")
        return image(place)

    for _ in range(2):
        found = decode_all(ITEMS, decode, source=["here"], cache=tmp_path)
        assert found.unreadable == {place: f"It is number {place}." for place in (1, 3, 5)}
        assert [*found.digests] == [0, 2, 4]


def test_names_that_break_lines_are_not_kept(tmp_path):
    items = ["a\nb", "c\rd", "e f", "g\udce9"]
    decoded = []

    def decode(place: int) -> Image.Image:
        decoded.append(place)
        return image(place)

    found = [decode_all(items, decode, source=["here"], cache=tmp_path).digests for _ in range(2)]
    assert found[0] == found[1]
    assert sorted(decoded) == [0, 0, 1, 1, 2, 3]


def test_two_images_of_one_identity_are_noticed():
    with pytest.raises(AssertionError, match="one identity"):
        decode_all(["a", "a"], image, source=["here"], cache=None)


def test_of_two_at_once_one_decodes(tmp_path: Path):
    decoded: list[int] = []

    def decode(place: int) -> Image.Image:
        decoded.append(place)
        return image(place)

    threads = [
        threading.Thread(target=lambda: decode_all(ITEMS, decode, source=["here"], cache=tmp_path)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(decoded) == list(range(6))


def test_an_interrupted_check_goes_on(tmp_path):
    items, decoded = list(map(str, range(1000))), []

    def decode(place: int) -> Image.Image:
        decoded.append(place)
        return image(place % 256)

    def interrupted(place: int) -> Image.Image:
        if place == 900:
            raise KeyboardInterrupt
        return image(place % 256)

    with pytest.raises(KeyboardInterrupt):
        decode_all(items, interrupted, source=["here"], cache=tmp_path)
    found = decode_all(items, decode, source=["here"], cache=tmp_path)
    assert found.digests == {place: pixels_digest(image(place % 256)) for place in range(1000)}
    assert sorted(decoded) == [*range(900 // pixel_digests.BATCH * pixel_digests.BATCH, 1000)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pixel_digests, "results_of", lambda *_: pytest.fail("decodes again"))
        assert decode_all(items, decode, source=["here"], cache=tmp_path) == found


@pytest.mark.parametrize(
    "rest",
    [b"0123", b"\x00" * 64 + b" 5.png 10 5\n", b"\xff" * 64 + b" 5.png 10 5\n"],
    ids=["cut short", "zeros", "no text"],
)
def test_a_line_that_is_not_whole_is_left_out(tmp_path, rest):
    decode_all(ITEMS[:3], image, source=["here"], cache=tmp_path)
    (path,) = tmp_path.glob("pixels-*.txt")
    whole = path.read_bytes()
    path.write_bytes(whole + rest)
    decoded = []

    def decode(place: int) -> Image.Image:
        decoded.append(place)
        return image(place)

    found = decode_all(ITEMS, decode, source=["here"], cache=tmp_path)
    assert found.digests == {place: pixels_digest(image(place)) for place in range(6)}
    assert sorted(decoded) == [3, 4, 5]
    assert path.read_bytes().startswith(whole)
    assert path.read_bytes().count(b"\n") == 7


def test_what_is_known_is_read_without_a_lock(tmp_path, monkeypatch):
    before = decode_all(ITEMS, image, source=["here"], cache=tmp_path)
    monkeypatch.setattr(pixel_digests, "FileLock", lambda *_, **__: pytest.fail("takes a lock"))
    assert decode_all(ITEMS, image, source=["here"], cache=tmp_path) == before


def test_the_lock_may_be_taken_by_every_user(tmp_path):
    previous = os.umask(0o077)
    try:
        decode_all(ITEMS, image, source=["here"], cache=tmp_path)
        (lock,) = tmp_path.glob("*.lock")
        assert lock.stat().st_mode & 0o777 == 0o666
    finally:
        os.umask(previous)


def test_a_cache_that_cannot_be_written_is_left_out_with_a_warning(tmp_path, caplog):
    (tmp_path / "file").touch()
    found = decode_all(ITEMS, image, source=["here"], cache=tmp_path / "file" / "cache")
    assert found == decode_all(ITEMS, image, source=["here"], cache=None)
    (message,) = caplog.messages
    assert "Not a directory): the digests of decoded images are not kept" in message


@pytest.mark.parametrize("name", ["write", "append"])
def test_a_disk_that_becomes_full_is_a_warning(tmp_path, monkeypatch, caplog, name):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pixel_digests, name, refuse)
    monkeypatch.setattr(pixel_digests, "BATCH", 2)
    found = decode_all(ITEMS, image, source=["here"], cache=tmp_path)
    assert found == decode_all(ITEMS, image, source=["here"], cache=None)
    (message,) = caplog.messages
    assert "No space left on device" in message
