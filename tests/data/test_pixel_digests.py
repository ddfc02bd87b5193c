"""Decoding all images once: digests that are known, errors, several at once."""

import threading
from pathlib import Path

import pytest
from PIL import Image

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
