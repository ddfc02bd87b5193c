"""95 % intervals that are centred on what was measured.

A bootstrap draws images twice, and a Frechet distance, which is biased by the number of different images, is then larger than the one that
was measured. Leaving parts out biases every replicate by the same amount, which does not count in their spread.

[0] Quenouille, Notes on Bias in Estimation, 1956, https://doi.org/10.1093/biomet/43.3-4.353; Tukey, 1958 (the jackknife)
[1] Busing, Meijer and van der Leeden, Delete-m Jackknife for Unequal m, 1999, https://doi.org/10.1023/A:1008800423698
[2] Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927, https://doi.org/10.1080/01621459.1927.10502953
"""

import math
from collections.abc import Sequence
from statistics import fmean

from scipy.special import stdtrit
from torch import Tensor

from ldbench.core.interfaces import Estimate

NORMAL = 1.959963984540054  # 97.5 % of a standard normal lies below


def jackknife(
    value: float,
    without: Sequence[float],  # the same number of a set, one of its parts left out each time
    *,
    least: float = -math.inf,  # what the number cannot be below
) -> Estimate:
    """What was measured, with the interval of a jackknife over parts of one size [0, 1]; none where the set has no parts to leave out."""
    if len(without) < 2:
        return Estimate(value)
    parts, mean = len(without), fmean(without)
    error = math.sqrt((parts - 1) / parts * sum((replicate - mean) ** 2 for replicate in without))
    half = float(stdtrit(parts - 1, 0.975)) * error
    return Estimate(value, max(least, value - half), value + half)


def of_mean(
    values: Tensor,  # (n,) float64
) -> Estimate:
    """The mean of independent numbers, with Student's interval; none for one number."""
    count, mean = len(values), values.mean().item()
    if count < 2:
        return Estimate(mean)
    half = float(stdtrit(count - 1, 0.975)) * values.std().item() / math.sqrt(count)
    return Estimate(mean, mean - half, mean + half)


def of_share(
    hits: Tensor,  # (n,) bool
) -> Estimate:
    """A share, with Wilson's interval [2], which holds near 0 and 1 too and is not symmetric there."""
    count, share = len(hits), hits.double().mean().item()
    scale = 1 + NORMAL**2 / count
    centre = (share + NORMAL**2 / (2 * count)) / scale
    half = NORMAL / scale * math.sqrt(share * (1 - share) / count + NORMAL**2 / (4 * count**2))
    return Estimate(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))
