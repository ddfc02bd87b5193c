"""Prediction: how well one measurement predicts the ranking of a few tokenizers by another.

Tokenizers come in families, such as variants of one architecture, which resemble each other in whatever is measured:
they are not independent. So p-values permute within families, where tokenizers are exchangeable if there is no
relation, and intervals are over families.

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
from itertools import product

import torch
from torch import Tensor

from ldbench.core.estimate import Estimate

MIN_PAIRS = 5  # among four, a perfect correlation has a p-value of 1 / 12
MIN_FAMILIES = 8  # for an interval over families
EXACT = 50_000  # permutations within families up to which all are enumerated


@dataclass(frozen=True)
class Association:
    """Rank correlations of two measurements with 95 % intervals, and a p-value."""

    num: int  # of pairs
    num_families: int
    spearman: Estimate  # without an interval for fewer than eight families
    kendall: Estimate  # tau-b, likewise
    p: float  # of the association within families, two-sided
    smallest_p: float  # that any order within families could have; above 0.05 there is no test
    resamples: int  # behind the intervals: those in which both measurements vary


def associate(
    x: Sequence[float],
    y: Sequence[float],
    *,
    families: Sequence[str] | None = None,  # of each pair; None: each is of a family of its own
    resamples: int,
    permutations: int,
    seed: int,
) -> Association:
    """Spearman's rho and Kendall's tau-b of paired values, with percentile bootstrap intervals over families [1] and a
    permutation p-value.

    A resample draws as many families with replacement, each with all its pairs; a pair that is drawn twice ties with
    itself. Resamples in which either measurement is constant have no correlation and are left out. There is no interval
    for fewer than eight families. The p-value is the share of permutations of `y` within families with at least as
    strong an association within families, the sum of the products of ranks about their families' means: of all
    permutations up to 50 000, else of `permutations` random ones and the observed [2]; it is 1 where no family has two
    pairs. If each pair is of a family of its own, all pairs are permuted. Raises ValueError for fewer than five pairs,
    for NaN, and for a constant measurement.
    """
    if len(x) != len(y) or len(x) < MIN_PAIRS:
        raise ValueError(f"A rank correlation needs at least {MIN_PAIRS} pairs, got {len(x)} and {len(y)} values.")
    if any(map(math.isnan, (*x, *y))):
        raise ValueError("A rank correlation is not defined for NaN.")
    if len(set(x)) == 1 or len(set(y)) == 1:
        raise ValueError("A constant measurement has no rank correlation.")
    names = list(range(len(x))) if families is None else list(families)
    members = [[i for i, name in enumerate(names) if name == family] for family in dict.fromkeys(names)]
    blocks = [list(range(len(x)))] if families is None or len(members) == len(x) else members
    first, second = sign_matrix(x), sign_matrix(y)
    rho, tau = coefficients(first[None], second[None])
    spearman, kendall, rng = rho.item(), tau.item(), torch.Generator().manual_seed(seed)
    p, smallest = permutation_p_value(first.sum(dim=1), second.sum(dim=1), blocks, permutations=permutations, rng=rng)
    if len(members) < MIN_FAMILIES:
        return Association(len(x), len(members), Estimate(spearman), Estimate(kendall), p, smallest, 0)
    drawn = torch.randint(len(members), (resamples, len(members)), generator=rng).tolist()
    rhos, taus = resampled_coefficients(first, second, [[members[index] for index in draw] for draw in drawn])
    kept = ~torch.isnan(rhos)
    return Association(
        len(x),
        len(members),
        spearman=Estimate(spearman, *percentiles(rhos[kept], spearman)),
        kendall=Estimate(kendall, *percentiles(taus[kept], kendall)),
        p=p,
        smallest_p=smallest,
        resamples=int(kept.sum()),
    )


def resampled_coefficients(
    first: Tensor,  # (n, n)
    second: Tensor,  # (n, n)
    draws: Sequence[Sequence[Sequence[int]]],  # of each resample its families, each with its pairs
) -> tuple[Tensor, Tensor]:  # (R,) twice
    """Spearman's rho and Kendall's tau-b of each resample."""
    rows = [torch.tensor([pair for family in draw for pair in family]) for draw in draws]
    found = [
        coefficients(first[row][:, row][None], second[row][:, row][None]) for row in rows
    ]  # resamples differ in their numbers of pairs
    rhos, taus = zip(*found, strict=True)
    return torch.cat(rhos), torch.cat(taus)


def sign_matrix(values: Sequence[float]) -> Tensor:  # (n, n) float64
    """For each pair of values 1 where the first is larger, -1 where it is smaller, else 0."""
    x = torch.tensor(values, dtype=torch.float64)
    return (x[:, None] > x).double() - (x[:, None] < x).double()


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
    blocks: Sequence[Sequence[int]],  # the pairs that are permuted among each other
    *,
    permutations: int,
    rng: torch.Generator,
) -> tuple[float, float]:
    """The two-sided p-value: the share of permutations of `y` within blocks whose association within blocks is at least
    as strong as that of `y` itself; and the smallest that any of them has.
    """
    exact = math.prod(math.factorial(len(block)) for block in blocks) <= EXACT
    if exact:
        orders = all_permutations(tuple(map(tuple, blocks)))
    else:
        orders = random_permutations(blocks, len(x), permutations, rng)
    inner = x.clone()  # which takes the mean of a block out of the products too
    for block in blocks:
        inner[list(block)] -= x[list(block)].mean()
    strengths = (y[orders] @ inner).abs()
    at_least = int((strengths >= (inner @ y).abs() - 1e-6).sum())
    if not exact:
        return (at_least + 1) / (len(orders) + 1), 1 / (len(orders) + 1)
    return at_least / len(orders), int((strengths >= strengths.max() - 1e-6).sum()) / len(orders)


@lru_cache(maxsize=8)
def all_permutations(blocks: tuple[tuple[int, ...], ...]) -> Tensor:  # (permutations, n)
    """All permutations within blocks of 0 to n - 1."""
    places = torch.tensor([place for block in blocks for place in block])
    orders = torch.tensor([sum(inner, ()) for inner in product(*(orders_of(block) for block in blocks))])
    full = torch.empty_like(orders)
    full[:, places] = orders
    return full


def random_permutations(
    blocks: Sequence[Sequence[int]], count: int, permutations: int, rng: torch.Generator
) -> Tensor:  # (permutations, count)
    """Random permutations within blocks."""
    orders = torch.arange(count).repeat(permutations, 1)
    for block in blocks:
        rows = torch.tensor(block)
        orders[:, rows] = rows[torch.rand(permutations, len(block), generator=rng).argsort(dim=1)]
    return orders


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
