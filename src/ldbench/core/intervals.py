"""95 % intervals of means, of proportions, and by the jackknife; the quantiles that they need.

A bootstrap draws images twice, and a Frechet distance, which is biased by the number of different images, is then
larger than the measured one. The jackknife leaves parts out, which biases every replicate by the same amount and does
not count in their spread.

[0] Quenouille, Notes on Bias in Estimation, 1956, https://doi.org/10.1093/biomet/43.3-4.353; Tukey, 1958 (the
jackknife)
[1] Busing, Meijer and van der Leeden, Delete-m Jackknife for Unequal m, 1999, https://doi.org/10.1023/A:1008800423698
[2] Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927,
https://doi.org/10.1080/01621459.1927.10502953
"""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

# norm.ppf and t.ppf of scipy.stats, which takes a second to load
from scipy.special import ndtri, stdtrit

from ldbench.core.estimate import Estimate

if TYPE_CHECKING:  # ranks need quantiles and no torch
    from torch import Tensor

NORMAL_QUANTILE = float(ndtri(0.975))
# in the intervals of means over images and of intrinsic dimensions, as in existing records
ROUNDED_NORMAL_QUANTILE = 1.96


def student_quantile(freedom: float) -> float:
    """The 97.5 % quantile of Student's t; fractional degrees of freedom are rounded down, which enlarges it."""
    return NORMAL_QUANTILE if math.isinf(freedom) else float(stdtrit(max(1, math.floor(freedom)), 0.975))


def normal_mean(
    values: "Tensor",  # (n,) float64
) -> Estimate:
    """The mean over images, with its normal interval; no interval for one image or infinite values."""
    return mean_with_interval(values, ROUNDED_NORMAL_QUANTILE)


def student_mean(
    values: "Tensor",  # (n,) float64
) -> Estimate:
    """The mean of independent numbers, with Student's interval; no interval for one number or infinite values."""
    return mean_with_interval(values, student_quantile(len(values) - 1))


def mean_with_interval(
    values: "Tensor",  # (n,) float64
    quantile: float,
) -> Estimate:
    """The mean, plus and minus `quantile` standard errors; no interval for one value or a mean that is not finite."""
    mean = values.mean().item()
    if len(values) < 2 or not math.isfinite(mean):
        return Estimate(mean)
    half = quantile * values.std().item() / math.sqrt(len(values))
    return Estimate(mean, mean - half, mean + half)


def proportion(
    hits: "Tensor",  # (n,) bool
) -> Estimate:
    """The proportion of hits, with Wilson's score interval [2], which is valid near 0 and 1 and asymmetric there."""
    count, share = len(hits), int(hits.sum()) / len(hits)
    scale = 1 + NORMAL_QUANTILE**2 / count
    center = (share + NORMAL_QUANTILE**2 / (2 * count)) / scale
    half = NORMAL_QUANTILE / scale * math.sqrt(share * (1 - share) / count + NORMAL_QUANTILE**2 / (4 * count**2))
    return Estimate(share, max(0.0, min(share, center - half)), min(1.0, max(share, center + half)))


def jackknife(
    value: float,
    replicates: Sequence[float],  # the same number of the set without one of its equal parts, for each part
    *,
    lower_bound: float = -math.inf,  # of the number
) -> Estimate:
    """The measured value, with a jackknife interval over parts of equal size [0, 1]; none for an undivided set."""
    if len(replicates) < 2:
        return Estimate(value)
    parts, mean = len(replicates), fmean(replicates)
    error = math.sqrt((parts - 1) / parts * sum((replicate - mean) ** 2 for replicate in replicates))
    half = student_quantile(parts - 1) * error
    return Estimate(value, max(lower_bound, value - half), value + half)
