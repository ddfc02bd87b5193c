"""Statistics of latents over a whole set, exact for any number of parts.

Posterior variance is included without sampling, by the law of total variance: Var z = Var E[z | image] + E Var[z |
image].

[0] Chan et al., Algorithms for Computing the Sample Variance, 1983, https://doi.org/10.1080/00031305.1983.10483115 (eq.
2.1: two parts)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

import torch
from torch import Tensor

ROWS = 64  # converted to float64 at once

Of = Literal["samples", "means"]


@dataclass(frozen=True)
class Statistics:
    """Mean and population variance of each channel over some latents, float64 (C,), pooled over tokens."""

    count: int  # values per channel
    mean: Tensor  # the same for samples and posterior means
    variance_of_means: Tensor
    mean_variance: Tensor  # of the posteriors; zero for points

    @classmethod
    def of(
        cls,
        moments: Tensor,  # (n, 2, N, C): posterior means and log-variances; or (n, 1, N, C): points
    ) -> "Statistics":
        """The statistics of posteriors; bit-identical for any batch size of the encoding."""
        return combine([cls._of_few(part) for part in moments.split(ROWS)])

    @classmethod
    def _of_few(cls, moments: Tensor) -> "Statistics":
        means = moments[:, 0].double().flatten(0, 1)  # (n N, C)
        variance = (
            moments[:, 1].double().exp().mean(dim=(0, 1)) if moments.shape[1] == 2 else torch.zeros_like(means[0])
        )
        return cls(len(means), means.mean(dim=0), means.var(dim=0, correction=0), variance)

    def merged_with(self, other: "Statistics") -> "Statistics":
        """The combined statistics of two parts, eq. 2.1 of [0]."""
        count = self.count + other.count
        ours, theirs = self.count / count, other.count / count
        difference = other.mean - self.mean
        return Statistics(
            count=count,
            mean=self.mean + theirs * difference,
            variance_of_means=ours * self.variance_of_means
            + theirs * other.variance_of_means
            + ours * theirs * difference.square(),
            mean_variance=ours * self.mean_variance + theirs * other.mean_variance,
        )

    def overall(self) -> "Statistics":
        """The statistics of all channels pooled, (1,)."""
        between = self.mean.var(dim=0, correction=0, keepdim=True)
        return Statistics(
            count=self.count * len(self.mean),
            mean=self.mean.mean(dim=0, keepdim=True),
            variance_of_means=self.variance_of_means.mean(dim=0, keepdim=True) + between,
            mean_variance=self.mean_variance.mean(dim=0, keepdim=True),
        )

    def std(self, of: Of = "samples") -> Tensor:
        """The standard deviation of each channel, (C,), of sampled latents or of posterior means."""
        return (self.variance_of_means + (self.mean_variance if of == "samples" else 0.0)).sqrt()

    def signal_to_noise(self) -> Tensor:
        """The variance of the means over that of the posteriors, for each channel, (C,); infinite for points."""
        return self.variance_of_means / self.mean_variance

    def to_dict(self) -> dict[str, Any]:
        """The statistics as JSON, exactly."""
        vectors = ("mean", "variance_of_means", "mean_variance")
        return {"count": self.count, **{name: getattr(self, name).tolist() for name in vectors}}

    @classmethod
    def from_dict(cls, numbers: Mapping[str, Any]) -> "Statistics":
        """The statistics from the output of `to_dict`. Raises ValueError for impossible values."""
        mean, *variances = (
            torch.tensor(numbers[name], dtype=torch.float64) for name in ("mean", "variance_of_means", "mean_variance")
        )
        if mean.ndim != 1 or any(variance.shape != mean.shape or not (variance >= 0).all() for variance in variances):
            raise ValueError("its statistics are not a mean and non-negative variances of each channel")
        return cls(numbers["count"], mean, *variances)


def combine(parts: Sequence[Statistics]) -> Statistics:
    """The combined statistics of all parts, in their order."""
    return reduce(Statistics.merged_with, parts)
