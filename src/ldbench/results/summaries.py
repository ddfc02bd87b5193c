"""Summaries: one model's number over its seeds, with the errors that it can be compared by.

Seeds are nested: a tokenizer is trained with several seeds, and on each of them a generator with several seeds. The
number of a model is the mean over tokenizer seeds of the mean over generator seeds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ldbench.core.estimate import Estimate
from ldbench.core.intervals import student_quantile

# what repeated measurements vary over, narrowest first: images or samples alone, for the trained weights; generator
# seeds too, for the trained tokenizers; all seeds
Scope = Literal["weights", "generator seeds", "seeds"]
SCOPES: tuple[Scope, ...] = ("weights", "generator seeds", "seeds")


@dataclass(frozen=True)
class Error:
    """The variance of one repeat with its degrees of freedom; times `share` it is the variance of the number."""

    variance: float
    freedom: float = math.inf
    share: float = 1.0

    @property
    def squared(self) -> float:
        """The squared standard error of the number."""
        return self.variance * self.share


@dataclass(frozen=True)
class Summary:
    """One model's number over its seeds."""

    value: float  # the mean
    seeds: int  # measurements: tokenizer seeds times generator seeds
    spread: float | None = None  # standard deviation over the widest scope; None for one seed
    low: float | None = None  # of the 95 % interval: of the mean over seeds, else of the one number
    high: float | None = None
    errors: Mapping[Scope, Error] = field(default_factory=dict)  # by scope, as far as they are known

    @property
    def scope(self) -> Scope | None:
        """The widest scope with a known error."""
        return next((scope for scope in reversed(SCOPES) if scope in self.errors), None)


def summarize(estimates: Sequence[Sequence[Estimate]]) -> Summary:
    """The mean over tokenizer seeds of the means over generator seeds; infinite if one number is.

    `estimates`: for each tokenizer seed one for each generator seed.
    """
    values = [[estimate.value for estimate in inner] for inner in estimates]
    count = sum(map(len, values))
    infinite = [value for inner in values for value in inner if math.isinf(value)]
    outer = infinite or [mean_of(inner) for inner in values]
    mean = infinite[0] if infinite else mean_of(outer)
    errors: dict[Scope, Error] = {}
    if not infinite:
        errors = {
            scope: error
            for scope, error in zip(
                SCOPES,
                (error_of_images(estimates), error_of_generators(values), error_of_tokenizers(outer)),
                strict=True,
            )
            if error is not None
        }
    if count == 1:
        only = estimates[0][0]
        return Summary(mean, 1, low=only.low, high=only.high, errors=errors)
    widest = errors.get("seeds", errors.get("generator seeds"))
    if widest is None:
        return Summary(mean, count, errors=errors)
    half = student_quantile(widest.freedom) * math.sqrt(widest.squared)
    return Summary(mean, count, math.sqrt(widest.variance), mean - half, mean + half, errors)


def pooled(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of independent measurements of the same weights; infinite if one number is.

    Its interval is cut where theirs are.
    """
    if len(estimates) == 1:
        return estimates[0]
    values = [estimate.value for estimate in estimates]
    infinite = next((value for value in values if math.isinf(value)), None)
    mean, error = mean_of(values) if infinite is None else infinite, error_of_images([estimates])
    if infinite is not None or error is None:
        return Estimate(mean)
    half = student_quantile(error.freedom) * math.sqrt(error.squared)
    low, high = mean - half, mean + half
    if all(estimate.low is not None and estimate.low >= 0 for estimate in estimates):
        low = max(0.0, low)
        if all(estimate.high is not None and estimate.high <= 1 for estimate in estimates):
            high = min(1.0, high)
    return Estimate(mean, low, high, math.sqrt(error.squared), error.freedom)


def mean_of(values: Sequence[float]) -> float:
    """The mean, which is exact for equal values."""
    return values[0] if len(set(values)) == 1 else math.fsum(values) / len(values)


def error_of_images(estimates: Sequence[Sequence[Estimate]]) -> Error | None:
    """The error for the trained weights, by the numbers' own standard errors; None if one has none."""
    parts = []
    for inner in estimates:
        for estimate in inner:
            if estimate.standard_error is None or not math.isfinite(estimate.standard_error):
                return None
            variance = (estimate.standard_error / len(inner) / len(estimates)) ** 2
            parts.append(Error(variance, math.inf if estimate.freedom is None else estimate.freedom))
    return sum_of(parts)


def error_of_generators(values: Sequence[Sequence[float]]) -> Error | None:
    """The error over generator seeds for the trained tokenizers; None if one has a single generator."""
    if any(len(inner) < 2 for inner in values):
        return None
    freedom = sum(len(inner) - 1 for inner in values)
    squares = math.fsum((value - mean_of(inner)) ** 2 for inner in values for value in inner)
    return Error(squares / freedom, freedom, math.fsum(1 / len(inner) for inner in values) / len(values) ** 2)


def error_of_tokenizers(means: Sequence[float]) -> Error | None:
    """The error over tokenizer seeds; None for one."""
    if len(means) < 2:
        return None
    mean = mean_of(means)
    variance = math.fsum((value - mean) ** 2 for value in means) / (len(means) - 1)
    return Error(variance, len(means) - 1, 1 / len(means))


def sum_of(parts: Sequence[Error]) -> Error:
    """The error of a sum of independent numbers, with Satterthwaite's degrees of freedom [0].

    [0] Satterthwaite, An Approximate Distribution of Estimates of Variance Components, 1946,
        https://doi.org/10.2307/3002019
    """
    total = math.fsum(part.squared for part in parts)
    if total == 0:
        return Error(0.0)
    inverse = math.fsum((part.squared / total) ** 2 / part.freedom for part in parts)
    return Error(total, 1 / inverse if inverse else math.inf)
