"""Pixels: both rules on levels known by hand, and the sheet of images."""

import pytest
import torch

from ldbench.core.pixels import from_uint8, sheet, to_uint8

LEVELS = torch.arange(256, dtype=torch.uint8)


def test_bytes_span_minus_one_to_one():
    images = from_uint8(torch.tensor([0, 51, 255], dtype=torch.uint8))
    assert images.dtype == torch.float32
    assert torch.allclose(images, torch.tensor([-1.0, -0.6, 1.0]), atol=1e-7)


@pytest.mark.parametrize("levels", [LEVELS, LEVELS.float()])
def test_every_level_is_the_quotient_to_the_last_bit_and_the_input_stays_as_it_is(levels):
    before = levels.clone()
    assert torch.equal(from_uint8(levels), before.float() / 127.5 - 1)
    assert torch.equal(levels, before)


@pytest.mark.parametrize("rule", ["round", "truncate"])
def test_every_byte_survives_the_way_there_and_back(rule):
    assert torch.equal(to_uint8(from_uint8(LEVELS), rule=rule), LEVELS)


@pytest.mark.parametrize("rule", ["round", "truncate"])
def test_what_lies_outside_is_clamped(rule):
    assert to_uint8(torch.tensor([-7.0, -1.0, 1.0, 1.01, 300.0]), rule=rule).tolist() == [0, 0, 255, 255, 255]


def test_rounding_goes_to_the_nearest_level():
    values = torch.tensor([99.4, 99.6, 0.4, 254.7], dtype=torch.float64) / 127.5 - 1
    assert to_uint8(values, rule="round").tolist() == [99, 100, 0, 255]


def test_truncation_is_the_floor_of_127_5_x_plus_128():
    x = torch.linspace(-0.99, 0.99, 4001, dtype=torch.float64)
    assert torch.equal(to_uint8(x, rule="truncate"), (127.5 * x + 128).floor().to(torch.uint8))


def test_the_rules_agree_wherever_no_value_lies_halfway_between_two_levels():
    x = torch.linspace(-1, 1, 10_000, dtype=torch.float64)  # truncation adds the half that rounding looks for
    assert torch.equal(to_uint8(x, rule="round"), to_uint8(x, rule="truncate"))


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), float("-inf")])
def test_a_pixel_that_is_not_finite_is_refused(broken):
    images = torch.zeros(1, 3, 2, 2)
    images[0, 1, 0, 1] = broken
    with pytest.raises(ValueError, match="not finite"):
        to_uint8(images)


def test_an_unknown_rule_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"'ceil'.*round, truncate or floor"):
        to_uint8(torch.zeros(2, 2), rule="ceil")


def test_a_sheet_lays_images_side_by_side_and_rows_below_each_other():
    colors = torch.tensor([-1.0, 0.2, 0.6, 1.0]).view(4, 1, 1, 1).expand(4, 3, 2, 2)
    picture = sheet([colors[:2], colors[2:]], cell=4, gap=1)
    assert picture.dtype == torch.uint8
    assert picture.shape == (3, 2 * (4 + 1), 2 * (4 + 1))  # two-pixel images doubled, a gap right of and below each
    level = [[0, 153], [204, 255]]
    for row in range(2):
        for column in range(2):
            cell = picture[:, 5 * row : 5 * row + 5, 5 * column : 5 * column + 5]
            assert (cell[:, :4, :4] == level[row][column]).all()
            assert (cell[:, 4] == 255).all()
            assert (cell[:, :, 4] == 255).all()


def test_images_larger_than_a_cell_keep_their_size():
    assert sheet([torch.zeros(3, 3, 10, 10)], cell=4, gap=2).shape == (3, 12, 36)
