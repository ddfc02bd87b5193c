"""Means over strata (classes, labels) that are drawn independently, with an interval over what is drawn within each.

[0] Cochran, Sampling Techniques, 1977 (chapter 5: stratified sampling)
[1] Satterthwaite, An Approximate Distribution of Estimates of Variance Components, 1946,
    https://doi.org/10.2307/3002019
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ldbench.core.estimate import Estimate
from ldbench.core.intervals import student_mean, student_quantile

if TYPE_CHECKING:
    from torch import Tensor


def combine_strata(estimates: Sequence[Estimate], weights: Sequence[float]) -> Estimate:
    """The weighted sum of independent estimates, eq. 5.1 and 5.6 of [0], with degrees of freedom by [1].

    No interval where one of them has no standard error. Where all standard errors are 0, so is the width of its own.
    Raises ValueError for no estimates.
    """
    if not estimates:
        raise ValueError("A mean over strata needs at least one stratum, got none.")
    value = math.fsum(weight * one.value for one, weight in zip(estimates, weights, strict=True))
    errors = [one.standard_error for one in estimates]
    if any(error is None for error in errors):
        return Estimate(value)
    variances = [(weight * error) ** 2 for error, weight in zip(errors, weights, strict=True) if error is not None]
    total = math.fsum(variances)
    pooled = math.fsum(
        variance**2 / (math.inf if one.freedom is None else one.freedom)
        for one, variance in zip(estimates, variances, strict=True)
    )
    freedom = total**2 / pooled if pooled else math.inf
    half = student_quantile(freedom) * math.sqrt(total)
    return Estimate(value, value - half, value + half, math.sqrt(total), None if math.isinf(freedom) else freedom)


def stratified_mean(
    values: "Tensor",  # (n,) float64
    strata: "Tensor",  # (n,) the stratum of each, such as a label that was chosen
) -> Estimate:
    """The mean of numbers that are independent within strata of fixed sizes, with an interval over what is drawn within
    them: differences between strata do not widen it.

    A stratum of a single number does not tell how much it varies: where there is one, the interval is that of
    independent numbers, which counts the differences between strata and is too wide rather than too narrow.
    """
    parts = [values[strata == one] for one in strata.unique()]
    if min(map(len, parts)) < 2:
        return student_mean(values)
    return combine_strata([student_mean(part) for part in parts], [len(part) / len(values) for part in parts])
