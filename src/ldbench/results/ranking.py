"""Ranks, and which of them are within noise of the best. Numbers of different protocols are never ranked together.

"Beyond noise of the best" is a statement about a whole column: of models of equal expectation, the chance that any is
marked so is at most 5 %. Each two models are tested by Student's t at 5 % over the number of pairs (Bonferroni [0]),
which covers the choice of the best and holds for any dependence between models.

- Over seeds, the variance of one seed is the larger of the two models' own and of the one that is pooled over the
  column, with the degrees of freedom of the pooled one [1]. So two seeds of each of several models tell something,
  although two seeds of one model do not, and a column whose models vary unequally has fewer degrees of freedom. Where
  all numbers are larger than their spread, variances are also pooled relative to the squares of the numbers, since
  larger distances vary more. Then each of the two tests is at half the level (Bonferroni again), and one suffices to
  tell two models apart.
- For the trained weights, where one of the two has one seed: by the standard errors of the two numbers [2]; by the
  differences of single images, where both were measured on the same ones.

[0] Dunn, Multiple Comparisons Among Means, 1961, https://doi.org/10.1080/01621459.1961.10482090
[1] Satterthwaite, An Approximate Distribution of Estimates of Variance Components, 1946,
    https://doi.org/10.2307/3002019
[2] Welch, The generalization of "Student's" problem when several different population variances are involved,
    1947, https://doi.org/10.1093/biomet/34.1-2.28
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ldbench.core.intervals import student_quantile
from ldbench.results.per_image import PerImage, no_values, paired_error
from ldbench.results.ranking_conditions import validate_same_conditions
from ldbench.results.records import Record, merge_directions
from ldbench.results.summaries import SCOPES, Error, Scope, Summary, sum_of, summarize

LEVEL = 0.05  # of a column
Paired = Callable[[int, int], Error | None]  # the error of the difference of two numbers on the same images, if known


@dataclass(frozen=True)
class Rank:
    """A position from 1, shared by equal numbers; whether it is `within_noise` of the best, None if that is unknown.

    `scope`: what the comparison with the best varies over; None where it needs none.
    """

    position: int
    within_noise: bool | None
    scope: Scope | None = None


@dataclass(frozen=True)
class Pool:
    """The variance of one seed over all models of a column, of the numbers or `relative` to their squares."""

    variance: float
    freedom: float
    relative: bool = False

    def variance_at(self, value: float) -> float:
        """The variance of one seed of a model with this number."""
        return self.variance * value * value if self.relative else self.variance


def rank(
    summaries: Sequence[Summary], *, higher_is_better: bool, paired: Paired = lambda first, second: None
) -> list[Rank]:
    """The rank of each."""
    sign = -1 if higher_is_better else 1
    costs = [sign * summary.value for summary in summaries]
    best = min(range(len(costs)), key=costs.__getitem__)
    level = LEVEL / max(1, math.comb(len(costs), 2))
    pools = {scope: pools_of(summaries, scope) for scope in SCOPES[1:]}
    ranks = []
    for index, (cost, summary) in enumerate(zip(costs, summaries, strict=True)):
        position = 1 + sum(other < cost for other in costs)
        if cost == costs[best] or math.isinf(cost) or math.isinf(costs[best]):
            ranks.append(Rank(position, cost == costs[best]))
            continue
        scope, within = common_scope(summaries[best], summary), None
        errors = [] if scope is None else difference_errors(summaries[best], summary, scope, pools)
        if scope in (None, "weights") and (on_images := paired(best, index)) is not None:
            scope, errors = "weights", [on_images]
        if errors:
            within = all(cost - costs[best] <= bound(error, level / len(errors)) for error in errors)
        ranks.append(Rank(position, within, scope))
    return ranks


def common_scope(first: Summary, second: Summary) -> Scope | None:
    """The widest scope in which the errors of both are known."""
    return next((scope for scope in reversed(SCOPES) if scope in first.errors and scope in second.errors), None)


def bound(error: Error, level: float) -> float:
    """The largest difference within noise, by a two-sided test."""
    return student_quantile(error.freedom, level) * math.sqrt(error.squared)


def difference_errors(
    first: Summary, second: Summary, scope: Scope, pools: Mapping[Scope, Sequence[Pool]]
) -> list[Error]:
    """The errors of the difference of two numbers in a scope that both have: one for each pool."""
    errors = (first.errors[scope], second.errors[scope])
    if scope == "weights":
        return [sum_of(errors)]
    own = math.fsum(error.squared for error in errors)
    found = []
    for pool in pools[scope]:
        shared = math.fsum(pool.variance_at(summary.value) * summary.errors[scope].share for summary in (first, second))
        found.append(Error(max(own, shared), pool.freedom))
    return found


def pools_of(summaries: Sequence[Summary], scope: Scope) -> list[Pool]:
    """The pools of a column: of the numbers, and relative to them if all are above their spread; none without seeds."""
    models = [(summary.value, summary.errors[scope]) for summary in summaries if scope in summary.errors]
    if not models:
        return []
    freedoms = [error.freedom for _, error in models]
    pools = [Pool(*pool([error.variance for _, error in models], freedoms))]
    if all(value > math.sqrt(error.variance) for value, error in models):
        relative = [(math.sqrt(error.variance) / value) ** 2 for value, error in models]
        pools.append(Pool(*pool(relative, freedoms), relative=True))
    return pools


def pool(variances: Sequence[float], freedoms: Sequence[float]) -> tuple[float, float]:
    """The pooled variance, with Satterthwaite's degrees of freedom."""
    squares = [freedom * variance for freedom, variance in zip(freedoms, variances, strict=True)]
    variance = math.fsum(squares) / math.fsum(freedoms)
    if variance == 0:
        return 0.0, math.inf
    largest = max(squares)  # which keeps the quotient finite for all valid numbers
    weights = [square / largest for square in squares]
    inverse = math.fsum(weight**2 / freedom for weight, freedom in zip(weights, freedoms, strict=True))
    return variance, math.fsum(weights) ** 2 / inverse


def rank_records(records: Sequence[Record], metric: str, values: PerImage = no_values) -> list[tuple[Record, Rank]]:
    """Records in the order of a metric, best first; each is compared for its trained weights.

    `values`: the values of single images. Raises ValueError if they were measured under different conditions, if they
    do not hold whether larger values are better, or if one has no such metric.
    """
    if not records:
        raise ValueError("There are no records to rank.")
    validate_same_conditions(records)
    for record in records:
        if metric not in record.metrics:
            raise ValueError(
                f"{record.job}-{record.id} has no {metric}. It has: {', '.join(record.metrics) or 'nothing'}."
            )
    better = merge_directions(records).get(metric)
    if better is None:
        raise ValueError(
            f"{metric} is not ranked: the records do not hold, or do not agree on, whether larger values are better. "
            "Metrics and jobs declare it as `higher_is_better`."
        )
    ranks = rank(
        [summarize([[record.metrics[metric]]]) for record in records],
        higher_is_better=better,
        paired=lambda first, second: paired_error([[records[first]]], [[records[second]]], metric, values),
    )
    return sorted(zip(records, ranks, strict=True), key=lambda pair: pair[1].position)
