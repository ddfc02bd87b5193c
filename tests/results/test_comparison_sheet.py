"""The PNG of a comparison: every image stands in its cell, pixel by pixel, and equal inputs give equal bytes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.made_records import make_record

from ldbench.results.comparison_sheet import CELL, FONT_SIZE, GAP, Lettering, draw_sheet, fitted, write_sheet
from ldbench.results.image_comparison import RECONSTRUCTIONS, Column, ImageComparison
from ldbench.results.ranking_conditions import conditions_of


def noise(seed: int, side: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


@pytest.fixture
def comparison() -> ImageComparison:
    """Two images, the original and one tokenizer."""
    return ImageComparison(
        RECONSTRUCTIONS,
        conditions_of(make_record()),
        ["first", "second"],
        [
            Column("original", [noise(0), noise(1)]),
            Column("a tokenizer whose long name needs two lines", [noise(2), noise(3)], [noise(4), noise(5)]),
        ],
        ["A note."],
        20.0,
    )


def test_images_are_enlarged_by_a_whole_factor_and_in_the_middle() -> None:
    image = noise(0)
    cell = fitted(image, 20)
    assert cell.shape == (20, 20, 3)
    assert (cell[2:18:2, 2:18:2] == image).all()
    assert (cell[3:18:2, 3:18:2] == image).all()
    assert (cell[:2] == 255).all()
    assert (fitted(noise(1, 64), 64) == noise(1, 64)).all()


def test_every_image_is_in_the_picture_in_rows_and_columns(comparison) -> None:
    whole = np.asarray(draw_sheet(comparison))
    below = np.full((GAP, CELL, 3), 255)
    columns = [np.concatenate([fitted(noise(2 * c), CELL), below, fitted(noise(2 * c + 1), CELL)]) for c in range(3)]
    beside = np.full((2 * CELL + GAP, GAP, 3), 255)
    expected = np.concatenate([columns[0], beside, columns[1], beside, columns[2]], axis=1)
    height, width = expected.shape[:2]
    places = [
        (top, left)
        for top, left in np.argwhere((whole == expected[0, 0]).all(axis=2))
        if np.array_equal(whole[top : top + height, left : left + width], expected)
    ]
    assert len(places) == 1


def test_equal_inputs_give_equal_bytes_and_others_other_ones(comparison, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_sheet(comparison, tmp_path / "new" / f"{name}.png")
    write_sheet(replace(comparison, scale=21.0), tmp_path / "new" / "three.png")
    one, three, two = (path.read_bytes() for path in sorted((tmp_path / "new").iterdir()))
    assert one == two != three


def test_without_a_scale_none_is_drawn(comparison) -> None:
    plain = replace(comparison, scale=None)
    assert draw_sheet(plain).height < draw_sheet(comparison).height


def test_text_is_wrapped_at_spaces_and_long_words_anywhere() -> None:
    text = Lettering(FONT_SIZE)
    assert text.wrapped("a b", 1000) == ["a b"]
    lines = text.wrapped("reconstructions of tokenizers", 90)
    assert lines == ["reconstructions", "of tokenizers"]
    assert "".join(text.wrapped("x" * 25, 80)) == "x" * 25
    assert text.wrapped("x" * 400, 80)[-1].endswith("...")
    assert text.wrapped("a\nb", 80) == ["a", "b"]
    assert len(text.wrapped("wide", 1)) == 3
