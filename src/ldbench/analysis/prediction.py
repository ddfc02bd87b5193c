"""Prediction: how well one measurement predicts the ranking of a few tokenizers by another.

Both coefficients are cosines of sign matrices (Daniels' general coefficient [0]): Kendall's tau-b of the matrices
themselves, Spearman's rho of their row sums, which are centered mid-ranks. Infinite values are ranked like others.

[0] Daniels, The Relation Between Measures of Correlation in the Universe of Sample Permutations, 1944,
    https://doi.org/10.1093/biomet/33.2.129
[1] Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13, https://doi.org/10.1201/9780429246593
[2] Phipson and Smyth, Permutation P-values Should Never Be Zero, 2010, https://doi.org/10.2202/1544-6115.1585
[3] Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979, https://www.jstor.org/stable/4615733
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations as orders_of

import torch
from torch import Tensor

from ldbench.core.estimate import Estimate

MIN_PAIRS = 5  # among four, a perfect correlation has a p-value of 1 / 12
EXACT = 8  # number of pairs up to which all permutations are enumerated
CHUNK = 500  # resamples in memory


@dataclass(frozen=True)
class Association:
    """Rank correlations of two measurements with 95 % intervals, and a p-value."""

    num: int  # of pairs
    spearman: Estimate
    kendall: Estimate  # tau-b
    p: float  # of Spearman's rho, two-sided
    resamples: int  # behind the intervals: those in which both measurements vary


def associate(
    x: Sequence[float],
    y: Sequence[float],
    *,
    resamples: int,
    permutations: int,
    seed: int,
) -> Association:
    """Spearman's rho and Kendall's tau-b of paired values, with percentile bootstrap intervals over the pairs [1] and a
    permutation p-value.

    A resample draws as many pairs with replacement; a pair that is drawn twice ties with itself. Resamples in which
    either measurement is constant have no correlation and are left out; if none remains, the interval is -1 to 1.
    Resamples of a perfect correlation are all perfect: its interval is a single point, which does not describe the
    uncertainty about further tokenizers; the p-value does. The p-value is the share of permutations of `y` with at
    least as strong a correlation: of all permutations up to eight pairs, else of `permutations` random ones and the
    observed [2]. Raises ValueError for fewer than five pairs, for NaN, and for a constant measurement.
    """
    if len(x) != len(y) or len(x) < MIN_PAIRS:
        raise ValueError(f"A rank correlation needs at least {MIN_PAIRS} pairs, got {len(x)} and {len(y)} values.")
    if any(map(math.isnan, (*x, *y))):
        raise ValueError("A rank correlation is not defined for NaN.")
    if len(set(x)) == 1 or len(set(y)) == 1:
        raise ValueError("A constant measurement has no rank correlation.")
    first, second = sign_matrix(x), sign_matrix(y)
    rho, tau = coefficients(first[None], second[None])
    spearman, kendall = rho.item(), tau.item()
    rng = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(x), (resamples, len(x)), generator=rng)
    rhos, taus = map(
        torch.cat,
        zip(
            *(coefficients(resampled(first, rows), resampled(second, rows)) for rows in drawn.split(CHUNK)), strict=True
        ),
    )
    kept = ~torch.isnan(rhos)
    return Association(
        num=len(x),
        spearman=Estimate(spearman, *percentiles(rhos[kept], spearman)),
        kendall=Estimate(kendall, *percentiles(taus[kept], kendall)),
        p=permutation_p_value(first.sum(dim=1), second.sum(dim=1), permutations=permutations, rng=rng),
        resamples=int(kept.sum()),
    )


def sign_matrix(values: Sequence[float]) -> Tensor:  # (n, n) float64
    """For each pair of values 1 where the first is larger, -1 where it is smaller, else 0."""
    x = torch.tensor(values, dtype=torch.float64)
    return (x[:, None] > x).double() - (x[:, None] < x).double()


def resampled(
    matrix: Tensor,  # (n, n)
    rows: Tensor,  # (R, n)
) -> Tensor:  # (R, n, n)
    """The sign matrices of resamples."""
    return matrix[rows[:, :, None], rows[:, None, :]]


def coefficients(
    first: Tensor,  # (R, n, n)
    second: Tensor,  # (R, n, n)
) -> tuple[Tensor, Tensor]:  # (R,) twice
    """Spearman's rho and Kendall's tau-b of sign matrices; NaN where all values are tied."""
    return cosine(first.sum(dim=2), second.sum(dim=2)), cosine(first.flatten(1), second.flatten(1))


def cosine(a: Tensor, b: Tensor) -> Tensor:  # (R, m) twice -> (R,)
    """Cosines of rows; NaN for a row of zeros. Sums of integers, so that equal rows give exactly 1."""
    return (a * b).sum(dim=1) / ((a * a).sum(dim=1) * (b * b).sum(dim=1)).sqrt()


def percentiles(values: Tensor, value: float) -> tuple[float, float]:
    """The 2.5 % and 97.5 % quantiles of resampled coefficients, widened to contain the value; -1 and 1 without
    resamples.
    """
    if not len(values):
        return -1.0, 1.0
    low, high = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return min(low, value), max(high, value)


def permutation_p_value(
    x: Tensor,  # (n,) centered ranks
    y: Tensor,  # (n,)
    *,
    permutations: int,
    rng: torch.Generator,
) -> float:
    """The two-sided p-value: the share of permutations of `y` that correlate with `x` at least as strongly as `y`
    itself.
    """
    exact = len(x) <= EXACT
    orders = all_permutations(len(x)) if exact else torch.rand(permutations, len(x), generator=rng).argsort(dim=1)
    at_least = int(((y[orders] @ x).abs() >= (x @ y).abs() - 1e-6).sum())  # both are integers
    return at_least / len(orders) if exact else (at_least + 1) / (len(orders) + 1)


@lru_cache(maxsize=EXACT)
def all_permutations(count: int) -> Tensor:  # (count!, count)
    """All permutations of `count` items."""
    return torch.tensor(list(orders_of(range(count))))


def holm(ps: Sequence[float]) -> list[float]:
    """Holm-corrected p-values of many tests: rejecting below a level bounds the probability of any false rejection by
    that level [3].

    Valid for any dependence between the tests.
    """
    corrected, largest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[index]))
        corrected[index] = largest
    return corrected


def mean_ranks(columns: Sequence[Sequence[float]]) -> list[float]:
    """The mean over columns of each item's rank, from 1 for the smallest; ties share the mid-rank."""
    matrices = torch.stack([sign_matrix(column) for column in columns])
    return ((matrices.sum(dim=2) + len(columns[0]) + 1) / 2).mean(dim=0).tolist()
