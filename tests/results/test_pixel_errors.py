"""Differences of images: closed forms of error maps, of colors, and of the place where reconstructions differ most."""

import numpy as np
import pytest

from ldbench.results.pixel_errors import (
    COLORS,
    colored,
    disagreement,
    error_map,
    largest_window,
    scale_bar,
    scale_of,
    window_sums,
)


def image(*color: int, side: int = 4) -> np.ndarray:
    return np.full((side, side, 3), color, dtype=np.uint8)


def test_an_error_is_the_mean_over_colors_of_the_absolute_difference() -> None:
    original, recon = image(10, 200, 0), image(13, 194, 0)
    recon[1, 2] = (255, 0, 255)
    errors = error_map(original, recon)
    assert errors[0, 0] == 3.0, "(3 + 6 + 0) / 3"
    assert errors[1, 2] == pytest.approx((245 + 200 + 255) / 3)
    assert (error_map(recon, original) == errors).all()


def test_the_scale_ends_at_the_99th_percentile_and_not_below_one_level() -> None:
    errors = np.arange(100.0).reshape(10, 10)
    assert scale_of([errors]) == 99.0, "the smallest error that at least 99 of 100 do not exceed, the next one above"
    assert scale_of([errors, np.zeros((90, 10))]) == 90.0, "of 1000 errors the 990th is 90"
    assert scale_of([np.zeros((4, 4))]) == 1.0


def test_colors_go_from_the_first_to_the_last_and_stay_there() -> None:
    steps = colored(np.array([[0.0, 5.0, 10.0, 20.0, 400.0]]), 20.0)
    assert steps.tolist() == [[COLORS[0].tolist(), COLORS[1].tolist(), COLORS[2].tolist(), *[COLORS[4].tolist()] * 2]]
    assert steps.dtype == np.uint8
    bar = scale_bar(9, 2)
    assert bar.shape == (2, 9, 3)
    assert (bar[:, [0, 2, 8]] == COLORS[[0, 1, 4]]).all()


def test_reconstructions_disagree_by_their_variance_and_a_single_one_by_its_squared_error() -> None:
    original = image(100, 100, 100)
    first, second = image(100, 100, 100), image(100, 110, 100)
    assert (disagreement(original, [second]) == 100).all()
    assert (disagreement(original, [first, second]) == 2**2 * 25).all(), "the variance of 100 and 110 is 25"
    assert (disagreement(image(0, 0, 0), [first, first]) == 0).all(), "both are as wrong"
    rng = np.random.default_rng(0)
    many = [rng.integers(0, 256, (3, 5, 3), dtype=np.uint8) for _ in range(4)]
    expected = 16 * np.stack(many).astype(float).var(axis=0).sum(axis=2)
    np.testing.assert_allclose(disagreement(many[0], many), expected, rtol=1e-12)


def test_the_largest_window_is_where_the_sum_is_largest_and_the_first_of_equal_ones() -> None:
    values = np.zeros((8, 10), dtype=np.int64)
    values[5, 7] = values[6, 8] = 4
    values[1, 1] = 5
    assert largest_window(values, 2) == (5, 7)
    assert largest_window(values, 1) == (1, 1)
    assert largest_window(np.ones((8, 10), dtype=np.int64), 3) == (0, 0)
    assert largest_window(values, 8) == (0, 1), "of equal sums the leftmost; the whole height"
    sums = window_sums(values, 3)
    assert sums.shape == (6, 8)
    assert all(sums[i, j] == values[i : i + 3, j : j + 3].sum() for i in range(6) for j in range(8))
