"""Ranks, and which of them are within noise. Numbers of different protocols are never ranked together.

Noise: with two seeds or more, the standard error of the mean over seeds; else that of the 95 % interval. Two models
differ beyond noise if their difference exceeds the 97.5 % quantile of Student's t times their combined error
(Welch [0], with Satterthwaite's degrees of freedom).

[0] Welch, The generalization of "Student's" problem when several different population variances are involved,
    1947, https://doi.org/10.1093/biomet/34.1-2.28
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ldbench.core.estimate import Estimate
from ldbench.core.intervals import NORMAL_QUANTILE, student_quantile
from ldbench.results.ranking_conditions import validate_same_conditions
from ldbench.results.records import Record, merge_directions


@dataclass(frozen=True)
class Noise:
    """The standard error of a number and its degrees of freedom; infinitely many where the error is known."""

    error: float
    freedom: float = math.inf


@dataclass(frozen=True)
class Summary:
    """One model's number over its seeds."""

    value: float  # the mean over seeds
    seeds: int
    spread: float | None = None  # standard deviation over two seeds or more
    low: float | None = None  # of the 95 % interval: of the mean over seeds, else of the one number
    high: float | None = None
    noise: Noise | None = None


@dataclass(frozen=True)
class Rank:
    """A position from 1, shared by equal numbers; `within_noise` of the best, None if a noise is unknown."""

    position: int
    within_noise: bool | None


def summarize(estimates: Sequence[Estimate]) -> Summary:
    """The mean over seeds with its noise, as far as that is known; infinite if one of them is."""
    values = [estimate.value for estimate in estimates]
    infinite = [value for value in values if math.isinf(value)]
    mean = infinite[0] if infinite else values[0] if len(set(values)) == 1 else math.fsum(values) / len(values)
    if len(values) == 1 or not math.isfinite(mean):
        (low, high) = (estimates[0].low, estimates[0].high) if len(values) == 1 else (None, None)
        noise = None
        if low is not None and high is not None and math.isfinite(high - low):
            noise = Noise((high - low) / 2 / NORMAL_QUANTILE)
        return Summary(mean, len(values), low=low, high=high, noise=noise)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    noise = Noise(spread / math.sqrt(len(values)), len(values) - 1)
    half = student_quantile(noise.freedom) * noise.error
    return Summary(mean, len(values), spread, mean - half, mean + half, noise)


def rank(summaries: Sequence[Summary], *, higher_is_better: bool) -> list[Rank]:
    """The rank of each."""
    sign = -1 if higher_is_better else 1
    costs = [sign * summary.value for summary in summaries]
    best = min(range(len(costs)), key=costs.__getitem__)
    return [
        Rank(
            1 + sum(other < cost for other in costs),
            True if cost == costs[best] else within_noise(summaries[best], summary),
        )
        for cost, summary in zip(costs, summaries, strict=True)
    ]


def within_noise(a: Summary, b: Summary) -> bool | None:
    """Whether two numbers differ by no more than their noise; None if the noise of one is unknown."""
    if math.isinf(a.value) or math.isinf(b.value):
        return a.value == b.value
    if a.noise is None or b.noise is None:
        return None
    variances = (a.noise.error**2, b.noise.error**2)
    total = sum(variances)
    if total == 0:
        return a.value == b.value
    parts = math.fsum(
        (variance / total) ** 2 / noise.freedom for variance, noise in zip(variances, (a.noise, b.noise), strict=True)
    )
    return abs(a.value - b.value) <= student_quantile(1 / parts if parts else math.inf) * math.sqrt(total)


def rank_records(records: Sequence[Record], metric: str) -> list[tuple[Record, Rank]]:
    """Records in the order of a metric, best first.

    Raises ValueError if they were measured under different conditions, if they do not hold whether larger values are
    better, or if one has no such metric.
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
    ranks = rank([summarize([record.metrics[metric]]) for record in records], higher_is_better=better)
    return sorted(zip(records, ranks, strict=True), key=lambda pair: pair[1].position)
