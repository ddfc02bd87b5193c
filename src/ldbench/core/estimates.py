"""From numbers of single images to an estimate of their mean."""

import math

from torch import Tensor

from ldbench.core.interfaces import Estimate


def mean_estimate(
    values: Tensor,  # (n,) float64
) -> Estimate:
    """The mean, with the normal 95 % interval of a mean over images; no interval for one image or infinite values."""
    mean = values.mean().item()
    if len(values) < 2 or not math.isfinite(mean):
        return Estimate(mean)
    half = 1.96 * values.std().item() / math.sqrt(len(values))
    return Estimate(mean, mean - half, mean + half)
