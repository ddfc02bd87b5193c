"""Where images differ: error maps, their colors, and the part of an image in which reconstructions differ most."""

from collections.abc import Sequence

import numpy as np
from numpy import ndarray

# of the error map, from no error to the greatest: five colors of matplotlib's inferno, with straight lines between
COLORS = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], dtype=np.float64)
QUANTILE = 0.99  # of the errors that a sheet shows: the end of its scale


def error_map(
    original: ndarray,  # (H, W, 3) uint8
    recon: ndarray,  # (H, W, 3) uint8
) -> ndarray:  # (H, W) float64
    """The absolute error of each pixel, averaged over colors, in levels of 0 to 255."""
    return np.abs(original.astype(np.int64) - recon.astype(np.int64)).mean(axis=2)


def scale_of(maps: Sequence[ndarray]) -> float:
    """The end of the scale that error maps share: the 99th percentile of all their errors, and at least 1 level."""
    return max(1.0, float(np.quantile(np.concatenate([errors.ravel() for errors in maps]), QUANTILE, method="higher")))


def colored(
    errors: ndarray,  # (H, W), in levels
    scale: float,  # the error of the last color; larger ones have it too
) -> ndarray:  # (H, W, 3) uint8
    """An error map in colors, from black (none) to light yellow (`scale` and more)."""
    place = np.clip(errors / scale, 0, 1) * (len(COLORS) - 1)
    channels = [np.interp(place, range(len(COLORS)), COLORS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=2).round().astype(np.uint8)


def scale_bar(width: int, height: int) -> ndarray:  # (height, width, 3) uint8
    """The colors of errors, from 0 at the left to the end of the scale."""
    return colored(np.tile(np.linspace(0, 1, width), (height, 1)), 1.0)


def disagreement(
    original: ndarray,  # (H, W, 3) uint8
    recons: Sequence[ndarray],  # K of (H, W, 3) uint8
) -> ndarray:  # (H, W) int64
    """How far the K reconstructions of an image differ at each pixel: K^2 times their variance, summed over colors; the
    squared error of a single one.

    These are whole numbers, so that images and places that are equal in this are recognized as equal.
    """
    if len(recons) == 1:
        return np.square(recons[0].astype(np.int64) - original.astype(np.int64)).sum(axis=2)
    total, squares = np.zeros(original.shape, dtype=np.int64), np.zeros(original.shape, dtype=np.int64)
    for recon in recons:
        values = recon.astype(np.int64)
        total += values
        squares += values * values
    return (len(recons) * squares - total * total).sum(axis=2)


def largest_window(
    values: ndarray,  # (H, W) int64
    size: int,  # at most H and W
) -> tuple[int, int]:
    """The top and the left of the square of `size` pixels with the largest sum; of several the highest, then the
    leftmost.
    """
    sums = window_sums(values, size)
    top, left = np.unravel_index(int(sums.argmax()), sums.shape)
    return int(top), int(left)


def window_sums(values: ndarray, size: int) -> ndarray:  # (H - size + 1, W - size + 1) int64
    """The sum over each square of `size` pixels, by its top and left."""
    sums = np.pad(values, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    return sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size] + sums[:-size, :-size]
