"""Reconstructions side by side: the order of rows, the values of error maps, and the places of crops are known."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.made_records import SHOWN, make_record, save_reconstructions

from ldbench.results.image_comparison import ImageComparison, SheetSettings, named_subjects
from ldbench.results.pixel_errors import colored
from ldbench.results.reconstruction_comparison import FRAME, compare_reconstructions

Images = Mapping[str, np.ndarray]


def gray(level: int, side: int = 8) -> np.ndarray:
    return np.full((side, side, 3), level, dtype=np.uint8)


def compare(
    folder: Path, originals: Images, recons: Mapping[str, Images], settings: SheetSettings = SHOWN
) -> ImageComparison:
    made = [
        save_reconstructions(
            folder, make_record(tokenizer=name), {key: (originals[key], image) for key, image in images.items()}
        )
        for name, images in recons.items()
    ]
    return compare_reconstructions(named_subjects(made, made), folder, settings)


def titles(comparison: ImageComparison) -> Sequence[str]:
    return [column.title for column in comparison.columns]


ORIGINALS = {"a": gray(50), "b": gray(100), "c": gray(150), "d": gray(200)}


def test_rows_are_sorted_by_where_tokenizers_differ_and_not_by_their_errors(tmp_path) -> None:
    vmae = {"a": gray(90), "b": gray(104), "c": gray(150), "d": gray(203)}
    vavae = {"a": gray(90), "b": gray(100), "c": gray(160), "d": gray(201)}
    found = compare(tmp_path, ORIGINALS, {"vmae": vmae, "vavae": vavae})
    assert found.rows == ["c", "b", "d"], "a: both are equally wrong, so it is the last of four"
    assert titles(found) == ["original", "vmae", "vavae"]
    assert [int(image[0, 0, 0]) for image in found.columns[0].images] == [150, 100, 200]
    assert [int(image[0, 0, 0]) for image in found.columns[2].images] == [160, 100, 201]
    assert "The 3 of 4 images on which the reconstructions differ most" in found.notes[0]


def test_error_maps_share_one_scale_that_is_stated(tmp_path) -> None:
    vmae = {key: image + 5 for key, image in ORIGINALS.items()}
    vavae = {key: image + 20 for key, image in ORIGINALS.items()}
    found = compare(tmp_path, ORIGINALS, {"vmae": vmae, "vavae": vavae})
    assert found.scale == 20.0
    for column, level in zip(found.columns[1:], (5.0, 20.0), strict=True):
        for errors in column.errors:
            assert (errors == colored(np.full((8, 8), level), 20.0)).all()
    assert found.columns[0].errors is None
    assert "All share one scale, which ends at the 99th percentile" in found.notes[-1]


def test_one_tokenizer_is_shown_by_its_errors(tmp_path) -> None:
    recons = {"a": gray(51), "b": gray(110), "c": gray(153), "d": gray(200)}
    found = compare(tmp_path, ORIGINALS, {"vmae": recons})
    assert found.rows == ["b", "c", "a"]
    assert "with the largest mean squared errors" in found.notes[0]


def test_of_images_that_differ_equally_the_first_is_first(tmp_path) -> None:
    found = compare(tmp_path, ORIGINALS, {"vmae": ORIGINALS, "vavae": ORIGINALS})
    assert found.rows == ["a", "b", "c"]
    assert found.scale == 1.0


def test_many_images_are_looked_at_evenly_spaced(tmp_path) -> None:
    originals = {f"{index:02d}": gray(10) for index in range(10)}
    recons = {name: gray(10 + int(name)) for name in originals}
    settings = replace(SHOWN, candidates=5)
    found = compare(tmp_path, originals, {"vmae": recons, "vavae": originals}, settings)
    assert found.rows == ["08", "06", "04"]
    assert "of 5 images, evenly spaced over 10" in found.notes[0]


def large(places: Mapping[str, tuple[int, int]], side: int = 128) -> tuple[Images, Images]:
    """Black images, and reconstructions with one white square of 8 px at a place."""
    originals = {name: gray(0, side) for name in places}
    recons = {name: image.copy() for name, image in originals.items()}
    for name, (top, left) in places.items():
        recons[name][top : top + 8, left : left + 8] = 255
    return originals, recons


def test_an_automatic_crop_holds_the_place_where_tokenizers_differ(tmp_path) -> None:
    originals, recons = large({"a": (70, 33), "b": (0, 120)})
    found = compare(tmp_path, originals, {"vmae": recons, "vavae": originals}, replace(SHOWN, crop="auto"))
    assert titles(found) == ["original", "original, crop", "vmae", "vavae"]
    assert found.crop
    for image, errors in zip(found.columns[2].images, found.columns[2].errors, strict=True):
        assert image.shape == errors.shape == (32, 32, 3), "a quarter of the side"
        assert (image == 255).all(axis=2).sum() == 64, "the whole square is in it"
    assert all(image.shape == (128, 128, 3) for image in found.columns[0].images), "the whole original, with a frame"
    top, left = np.argwhere((found.columns[0].images[0] == FRAME).all(axis=2)).min(axis=0)
    assert (top + 2, left + 2) == (70 + 8 - 32, 33 + 8 - 32), "the first of all windows that hold the square"


def test_a_given_crop_is_that_part_of_every_image_and_of_its_order(tmp_path) -> None:
    originals, recons = large({"a": (70, 33), "b": (16, 40)})
    recons["a"] = recons["a"].copy()
    recons["a"][100:120, 100:120] = 255  # more, and not in the crop
    settings = replace(SHOWN, crop=[16, 32, 32])
    found = compare(tmp_path, originals, {"vmae": recons, "vavae": originals}, settings)
    assert found.rows == ["b", "a"]
    assert (found.columns[2].images[0] == recons["b"][16:48, 32:64]).all()
    assert "Crops of 32 x 32 px, from row 16 and column 32 on" in found.notes[1]
    frame = (found.columns[0].images[0] == FRAME).all(axis=2)
    assert frame.sum() == 36 * 36 - 32 * 32, "2 px around the crop"


def test_a_crop_that_is_not_in_the_image_or_of_small_images_is_refused(tmp_path) -> None:
    originals, recons = large({"a": (70, 33)})
    with pytest.raises(ValueError, match=r"crop=\[100,0,32\] ends at row 132 .* have 128 rows"):
        compare(tmp_path, originals, {"vmae": recons}, replace(SHOWN, crop=[100, 0, 32]))
    with pytest.raises(ValueError, match="images of 128 px and more, and these have 8 x 8 px"):
        compare(tmp_path / "small", ORIGINALS, {"vmae": ORIGINALS}, replace(SHOWN, crop="auto"))


def test_images_of_other_originals_are_not_compared(tmp_path) -> None:
    one = save_reconstructions(tmp_path, make_record(), {"a": (gray(1), gray(1))})
    two = save_reconstructions(tmp_path, make_record(tokenizer="vavae"), {"a": (gray(2), gray(2))})
    three = save_reconstructions(tmp_path, make_record(tokenizer="maetok"), {"z": (gray(1), gray(1))})
    four = save_reconstructions(tmp_path, make_record(tokenizer="rae"), {"a": (gray(1, 16), gray(1, 16))})
    for other, message in (
        (two, "have different originals of the name a"),
        (three, "have no saved image in common"),
        (four, "has 16 x 16 px, and its original in .* 8 x 8 px"),
    ):
        with pytest.raises(ValueError, match=f"{message}.*only="):
            compare_reconstructions(named_subjects([one, other], [one, other]), tmp_path, SHOWN)


def test_without_saved_images_the_command_that_saves_them_is_named(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"ldbench\.run job=reconstruct .* job\.save_images=true"):
        compare_reconstructions([], tmp_path, SHOWN)
