"""Prediction: how well one measurement orders a few tokenizers as another does.

Both coefficients are cosines between tables of signs (Daniels' general coefficient [0]): Kendall's tau-b of the tables themselves, Spearman's rho of
their row sums, which are ranks with ties in the middle. Infinite values have ranks like others.

[0] Daniels, The Relation Between Measures of Correlation in the Universe of Sample Permutations, 1944, https://doi.org/10.1093/biomet/33.2.129
[1] Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13, https://doi.org/10.1201/9780429246593
[2] Phipson and Smyth, Permutation P-values Should Never Be Zero, 2010, https://doi.org/10.2202/1544-6115.1585
[3] Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979, https://www.jstor.org/stable/4615733
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations as all_orders

import torch
from torch import Tensor

from ldbench.core.estimate import Estimate

LEAST = 5  # items: among four, the strongest order of all comes by chance once in twelve
EXACT = 8  # items up to which all orders are counted
CHUNK = 500  # resamples that are held at once


@dataclass(frozen=True)
class Association:
    """Rank correlations of two measurements with 95 % intervals, and how often chance alone is as strong."""

    num: int  # items
    spearman: Estimate
    kendall: Estimate  # tau-b
    p: float  # of Spearman's rho, two-sided
    resamples: int  # that the intervals are of: those in which both measurements vary


def associate(
    x: Sequence[float],
    y: Sequence[float],
    *,
    resamples: int,
    permutations: int,
    seed: int,
) -> Association:
    """Spearman's rho and Kendall's tau-b of paired values, with percentile bootstrap intervals over the pairs [1] and a permutation p-value.

    A resample draws as many pairs with replacement; a pair that is drawn twice ties with itself. A resample in which either measurement is the same
    throughout has no correlation and is left out; where none is left, the interval is -1 to 1. Of a perfect order every resample is perfect:
    its interval is a single point, which says nothing of the next tokenizer; the p-value does.
    The p-value counts the orders of `y` that are at least as strong: all of them up to eight pairs, else `permutations` drawn ones and the
    observed [2].
    Raises ValueError for fewer than five pairs, for NaN, and for a measurement that is the same throughout.
    """
    if len(x) != len(y) or len(x) < LEAST:
        raise ValueError(f"A rank correlation is told of {LEAST} pairs or more, got {len(x)} and {len(y)} values.")
    if any(map(math.isnan, (*x, *y))):
        raise ValueError("A rank correlation is of numbers, and one of these is NaN.")
    if len(set(x)) == 1 or len(set(y)) == 1:
        raise ValueError("A measurement that is the same for all has no rank correlation.")
    first, second = signs(x), signs(y)
    rho, tau = coefficients(first[None], second[None])
    spearman, kendall = (told.item() for told in (rho, tau))
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
        p=chance(first.sum(dim=1), second.sum(dim=1), permutations=permutations, rng=rng),
        resamples=int(kept.sum()),
    )


def signs(values: Sequence[float]) -> Tensor:  # (n, n) float64
    """Of every pair of values: 1 where the first is larger, -1 where it is smaller."""
    x = torch.tensor(values, dtype=torch.float64)
    return (x[:, None] > x).double() - (x[:, None] < x).double()


def resampled(
    table: Tensor,  # (n, n)
    rows: Tensor,  # (R, n)
) -> Tensor:  # (R, n, n)
    """The tables of signs of resamples."""
    return table[rows[:, :, None], rows[:, None, :]]


def coefficients(
    first: Tensor,  # (R, n, n)
    second: Tensor,  # (R, n, n)
) -> tuple[Tensor, Tensor]:  # (R,) twice
    """Spearman's rho and Kendall's tau-b of tables of signs; NaN where either is all ties."""
    return cosine(first.sum(dim=2), second.sum(dim=2)), cosine(first.flatten(1), second.flatten(1))


def cosine(a: Tensor, b: Tensor) -> Tensor:  # (R, m) twice -> (R,)
    """Cosines of rows; NaN for a row of zeros. Sums of whole numbers: those of equal rows are 1."""
    return (a * b).sum(dim=1) / ((a * a).sum(dim=1) * (b * b).sum(dim=1)).sqrt()


def percentiles(values: Tensor, value: float) -> tuple[float, float]:
    """The 2.5 % and 97.5 % points of resampled coefficients, widened to hold the value itself; -1 and 1 of none."""
    if not len(values):
        return -1.0, 1.0
    low, high = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return min(low, value), max(high, value)


def chance(
    x: Tensor,  # (n,) centred ranks
    y: Tensor,  # (n,)
    *,
    permutations: int,
    rng: torch.Generator,
) -> float:
    """The share of orders of `y` that go with `x`, or against it, at least as strongly as the given one."""
    exact = len(x) <= EXACT
    orders = every_order(len(x)) if exact else torch.rand(permutations, len(x), generator=rng).argsort(dim=1)
    strong = int(((y[orders] @ x).abs() >= (x @ y).abs() - 1e-6).sum())  # both are whole numbers
    return strong / len(orders) if exact else (strong + 1) / (len(orders) + 1)


@lru_cache(maxsize=EXACT)
def every_order(count: int) -> Tensor:  # (count!, count)
    """All orders of some items."""
    return torch.tensor(list(all_orders(range(count))))


def holm(ps: Sequence[float]) -> list[float]:
    """p-values of many tests, each raised so that the chance of a single false one below a level is that level at most [3].

    Nothing is assumed of how the tests depend on each other.
    """
    raised, largest = [0.0] * len(ps), 0.0
    for place, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        largest = max(largest, min(1.0, (len(ps) - place) * ps[index]))
        raised[index] = largest
    return raised


def mean_ranks(columns: Sequence[Sequence[float]]) -> list[float]:
    """The mean over columns of each item's rank, from 1 for the smallest; ties share the middle."""
    tables = torch.stack([signs(column) for column in columns])
    return ((tables.sum(dim=2) + len(columns[0]) + 1) / 2).mean(dim=0).tolist()
