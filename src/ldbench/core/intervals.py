"""95 % intervals of means, of proportions, and by the jackknife; the quantiles that they need.

A bootstrap draws images twice, and a Frechet distance, which is biased by the number of different images, is then
larger than the measured one. The jackknife leaves parts out, which biases every replicate by the same amount and does
not count in their spread.

[0] Quenouille, Notes on Bias in Estimation, 1956, https://doi.org/10.1093/biomet/43.3-4.353; Tukey, 1958 (the
jackknife)
[1] Busing, Meijer and van der Leeden, Delete-m Jackknife for Unequal m, 1999, https://doi.org/10.1023/A:1008800423698
[2] Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927,
https://doi.org/10.1080/01621459.1927.10502953
[3] Efron and Stein, The Jackknife Estimate of Variance, 1981, https://doi.org/10.1214/aos/1176345462 (section 5)
[4] Korn and Graubard, Confidence Intervals for Proportions with Small Expected Number of Positive Counts Estimated from
Survey Data, 1998, Survey Methodology 24, 193 (effective sample size)
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

# norm.ppf and t.ppf of scipy.stats, which takes a second to load
from scipy.special import ndtri, stdtrit

from ldbench.core.estimate import Estimate

if TYPE_CHECKING:  # ranks need quantiles and no torch
    from torch import Tensor

NORMAL_QUANTILE = float(ndtri(0.975))
SMALLEST_SHARE = 0.4  # of the jackknife's variance: what is taken off is an estimate, and at most half of it in truth


@dataclass(frozen=True)
class Replicates:
    """A number of a set, and the same number without some of the set's equal parts, for a jackknife.

    Numbers of the same images, such as those of several feature extractors, have replicates without the same images,
    so that their mean has an interval.
    """

    value: float
    without: Sequence[float]  # each part in turn; empty for an undivided set
    pairs: Mapping[tuple[int, int], float]  # some pairs of parts
    lower_bound: float = -math.inf  # of the number

    @classmethod
    def mean_of(cls, numbers: Sequence["Replicates"]) -> "Replicates":
        """The mean of several numbers of the same images."""
        return cls(
            fmean(number.value for number in numbers),
            [fmean(values) for values in zip(*(number.without for number in numbers), strict=True)],
            {pair: fmean(number.pairs[pair] for number in numbers) for pair in numbers[0].pairs},
            fmean(number.lower_bound for number in numbers),
        )

    def minus(self, other: "Replicates") -> "Replicates":
        """The difference of two numbers of images that are paired."""
        return Replicates(
            self.value - other.value,
            [ours - theirs for ours, theirs in zip(self.without, other.without, strict=True)],
            {pair: ours - other.pairs[pair] for pair, ours in self.pairs.items()},
        )

    def divided_by(self, unit: float) -> "Replicates":
        """In another unit."""
        return Replicates(
            self.value / unit,
            [value / unit for value in self.without],
            {pair: value / unit for pair, value in self.pairs.items()},
            self.lower_bound / unit,
        )

    def estimate(self) -> Estimate:
        """The number with its interval, see `jackknife`."""
        return jackknife(self.value, self.without, pairs=self.pairs, lower_bound=self.lower_bound)


def student_quantile(freedom: float, level: float = 0.05) -> float:
    """The quantile of Student's t that its absolute value exceeds with probability `level`.

    Fractional degrees of freedom are rounded down, which enlarges it.
    """
    return -float(ndtri(level / 2) if math.isinf(freedom) else stdtrit(max(1, math.floor(freedom + 1e-9)), level / 2))


def student_mean(
    values: "Tensor",  # (n,) float64
) -> Estimate:
    """The mean of independent numbers, with Student's interval; none for one number or a mean that is not finite."""
    mean, freedom = values.mean().item(), len(values) - 1
    if freedom < 1 or not math.isfinite(mean):
        return Estimate(mean)
    error = values.std().item() / math.sqrt(len(values))
    half = student_quantile(freedom) * error
    return Estimate(mean, mean - half, mean + half, error, freedom)


def proportion(
    hits: "Tensor",  # (n,) bool
) -> Estimate:
    """The proportion of hits, with Wilson's score interval [2], which is valid near 0 and 1 and asymmetric there.

    The standard error is that of Wilson's center, which is above 0 where all or none are hits.
    """
    return wilson(int(hits.sum()) / len(hits), len(hits))


def mean_share(
    shares: "Tensor",  # (n,) float64 in [0, 1], one of each image
) -> Estimate:
    """The mean of shares, with Wilson's interval for as many hits or misses as would vary as much [4].

    Shares of equal mean vary most where each is 0 or 1, and then this is the interval of a proportion. So it is where
    all are 0 or all are 1, which does not tell how much they vary. Covers in 90 to 98 %
    (`tests/simulations/test_intervals.py`).
    """
    mean, count = shares.mean().item(), len(shares)
    variance = shares.var(correction=0).item()
    return wilson(mean, count * mean * (1 - mean) / variance if variance > 0 else count)


def wilson(share: float, count: float) -> Estimate:
    """Wilson's score interval of a share of `count` hits or misses."""
    scale = 1 + NORMAL_QUANTILE**2 / count
    center = (share + NORMAL_QUANTILE**2 / (2 * count)) / scale
    half = NORMAL_QUANTILE / scale * math.sqrt(share * (1 - share) / count + NORMAL_QUANTILE**2 / (4 * count**2))
    low, high = max(0.0, min(share, center - half)), min(1.0, max(share, center + half))
    return Estimate(share, low, high, half / NORMAL_QUANTILE)


def jackknife(
    value: float,
    replicates: Sequence[float],  # the same number of the set without one of its equal parts, for each part
    *,
    pairs: Mapping[tuple[int, int], float] = {},  # the same without two of its parts, for some pairs of parts
    smallest_error: float = 0.0,  # the standard error that it has in any case
    lower_bound: float = -math.inf,  # of the number
    upper_bound: float = math.inf,
) -> Estimate:
    """The measured value, with a jackknife interval over parts of equal size [0, 1]; none for an undivided set.

    The jackknife counts what two parts contribute together twice. A distance between sets of one law has little else,
    and its variance is half of what the jackknife gives: `pairs` estimate that share, which is taken off [3]. What
    remains is less certain, which matters most far out in the tails, where ranks are decided: the degrees of freedom
    fall by the same share. The interval is by those of the whole, with which it is as wide as the numbers spread
    (`tests/simulations/test_set_metrics.py`).
    """
    if len(replicates) < 2:
        return Estimate(value)
    parts, mean = len(replicates), fmean(replicates)
    whole = variance = (parts - 1) / parts * sum((replicate - mean) ** 2 for replicate in replicates)
    if len(pairs) > 1:
        together = [
            parts * value - (parts - 1) * (replicates[first] + replicates[second]) + (parts - 2) * without
            for (first, second), without in pairs.items()
        ]
        center = fmean(together)
        excess = sum((number - center) ** 2 for number in together) / (len(together) - 1) / 2
        variance = max(whole - excess, whole * SMALLEST_SHARE)
    error = max(math.sqrt(variance), smallest_error)
    half = student_quantile(parts - 1) * error
    freedom = (parts - 1) * variance / whole if whole else parts - 1
    return Estimate(value, max(lower_bound, value - half), min(upper_bound, value + half), error, freedom)


def debiased_jackknife(
    value: float,
    replicates: Sequence[float],  # the same number of the set without one of its parts, for each part
    sizes: Sequence[int],  # of the parts
) -> Estimate:
    """The value without its bias of order 1 / n, and its interval, by the jackknife over parts of any sizes [0, 1].

    For numbers whose bias at a finite set is known to be smooth in its size, such as sums of functions of eigenvalues.
    Raises ValueError for fewer than two parts.
    """
    if len(replicates) < 2:
        raise ValueError(f"A jackknife needs at least two parts, got {len(replicates)}.")
    count = sum(sizes)
    pseudo = [  # eq. 4 of [1]
        count / size * value - (count / size - 1) * without for without, size in zip(replicates, sizes, strict=True)
    ]
    corrected = math.fsum(size / count * one for one, size in zip(pseudo, sizes, strict=True))
    variance = fmean(
        (one - corrected) ** 2 / (count / size - 1) for one, size in zip(pseudo, sizes, strict=True)
    )  # eq. 5 of [1]
    error, freedom = math.sqrt(variance), len(replicates) - 1
    half = student_quantile(freedom) * error
    return Estimate(corrected, corrected - half, corrected + half, error, freedom)
