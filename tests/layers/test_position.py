"""Position tables: the sinusoid entry by entry, and resizing on tables whose answer is known."""

import math

import pytest
import torch

from ldbench.layers.position import resize_table, sincos_1d, sincos_2d


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_first_half_holds_the_column_and_the_second_the_row_each_as_sines_then_cosines(dtype):
    table = sincos_2d((3, 5), width=8, dtype=dtype)
    assert table.shape == (1, 15, 8)
    assert table.dtype == torch.float32
    for row in range(3):
        for column in range(5):
            expected = []
            for position in (column, row):
                angles = [position * 10000 ** (-k / 2) for k in range(2)]
                expected += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
            assert torch.allclose(table[0, 5 * row + column], torch.tensor(expected), atol=1e-6)


def test_the_precision_of_the_frequencies_shows_in_the_table():
    single, double = (sincos_2d((64, 64), width=192, dtype=dtype) for dtype in (torch.float32, torch.float64))
    assert 0 < (single - double).abs().max() < 1e-4


def test_the_table_of_a_sequence_interleaves_sines_and_cosines():
    table = sincos_1d(5, width=6)
    assert table.shape == (1, 5, 6)
    assert table.dtype == torch.float32
    for position in range(5):
        expected = [rotation(position * 10000 ** (-2 * i / 6)) for i in range(3) for rotation in (math.sin, math.cos)]
        assert torch.allclose(table[0, position], torch.tensor(expected), atol=1e-5)
    with pytest.raises(ValueError, match="even width, got 5"):
        sincos_1d(2, width=5)


def test_a_width_that_four_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="divisible by 4, got 6"):
        sincos_2d((2, 2), width=6)


def test_a_table_on_its_own_grid_is_unchanged():
    table = torch.randn(1, 12, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(resize_table(table, (3, 4), (3, 4)), table)


def test_doubling_interpolates_between_the_centers_of_cells():
    table = torch.tensor([0.0, 4.0]).view(1, 2, 1)  # one row of two
    # at -0.25 (clamped), 0.25, 0.75, 1.25
    assert resize_table(table, (1, 2), (1, 4)).flatten().tolist() == [0, 1, 3, 4]
    assert resize_table(table, (2, 1), (4, 1)).flatten().tolist() == [0, 1, 3, 4]


def test_halving_takes_the_two_nearest_and_does_not_smooth():
    table = torch.tensor([0.0, 0, 8, 0, 0, 0, 0, 0]).view(1, 8, 1)
    # at 1.5 and 5.5; antialiasing would spread the 8
    assert resize_table(table, (1, 8), (1, 2)).flatten().tolist() == [4, 0]


def test_rows_stay_rows_and_columns_columns():
    rows, columns = torch.meshgrid(torch.arange(3.0), torch.arange(4.0), indexing="ij")
    resized = resize_table(torch.stack([rows, columns], dim=-1).view(1, 12, 2), (3, 4), (6, 8)).view(6, 8, 2)
    assert (resized[..., 0] == resized[:, :1, 0]).all()
    assert (resized[..., 1] == resized[:1, :, 1]).all()
    assert resized[1:-1, 0, 0].tolist() == [0.25, 0.75, 1.25, 1.75]
    assert resized[0, 1:-1, 1].tolist() == [0.25, 0.75, 1.25, 1.75, 2.25, 2.75]


def test_a_table_of_another_length_is_refused():
    with pytest.raises(ValueError, match="12 positions does not fit a 4x4 grid"):
        resize_table(torch.zeros(1, 12, 4), (4, 4), (8, 8))
