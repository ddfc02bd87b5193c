"""Moments: the mean and spread of features, gathered in parts that can be merged in any order.

[0] Chan, Golub and LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979, http://i.stanford.edu/pub/cstr/reports/cs/tr/79/773/CS-TR-79-773.pdf
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

SMALLEST_PIVOT = 1e-9  # of the largest variance: below it a covariance is taken as one that may lack some rank


@dataclass(frozen=True)
class Gaussian:
    """A normal law, whose covariance may have any rank."""

    mean: Tensor  # (D,) float64
    covariance: Tensor  # (D, D) float64

    @cached_property
    def root(self) -> Tensor:  # (r, D)
        """A factor R of the covariance R'R: Cholesky's where it has full rank, else that of its eigenvectors, without those that are rounding."""
        factor, failed = torch.linalg.cholesky_ex(self.covariance)
        largest = self.covariance.diagonal().max()
        if not failed and factor.diagonal().square().min() > SMALLEST_PIVOT * largest:
            return factor.T
        values, vectors = torch.linalg.eigh(self.covariance)
        real = values > values[-1].clamp(min=0) * len(values) * torch.finfo(values.dtype).eps
        return (vectors[:, real] * values[real].sqrt()).T


@dataclass(frozen=True)
class Moments:
    """How many items there are, their mean, and the sum of the outer products of what each differs by from it."""

    count: int
    mean: Tensor  # (D,) float64
    scatter: Tensor  # (D, D) float64

    @classmethod
    def of(
        cls,
        features: Tensor,  # (n, D)
    ) -> "Moments":
        """Of some features, in float64."""
        features = features.double()
        mean = features.mean(dim=0) if len(features) else features.new_zeros(features.shape[1])
        centred = features - mean
        return cls(len(features), mean, centred.T @ centred)

    @classmethod
    def none(cls, width: int) -> "Moments":
        """Of no items."""
        return cls(0, torch.zeros(width, dtype=torch.float64), torch.zeros(width, width, dtype=torch.float64))

    def merged(self, other: "Moments") -> "Moments":
        """Of the items of both [0]."""
        if not other.count or not self.count:
            return self if self.count else other
        count = self.count + other.count
        apart = other.mean - self.mean
        scatter = self.scatter + other.scatter
        scatter.addr_(apart, apart, alpha=self.count * other.count / count)
        return Moments(count, self.mean + apart * (other.count / count), scatter)

    def absorb(
        self,
        features: Tensor,  # (n, D)
    ) -> "Moments":
        """Of these items and some more. The sums are taken over in place: these moments are used up."""
        if not len(features):
            return self
        features = features.double()
        mean, count = features.mean(dim=0), self.count + len(features)
        centred, apart = features - mean, mean - self.mean
        self.scatter.addmm_(centred.T, centred).addr_(apart, apart, alpha=self.count * len(features) / count)
        return Moments(count, self.mean + apart * (len(features) / count), self.scatter)

    @classmethod
    def together(cls, parts: Sequence["Moments"]) -> "Moments":
        """Of the items of all parts [0], at the cost of one more."""
        count = sum(part.count for part in parts)
        mean = sum((part.mean * (part.count / max(count, 1)) for part in parts), torch.zeros_like(parts[0].mean))
        scatter = torch.zeros_like(parts[0].scatter)
        for part in parts:
            scatter += part.scatter
        apart = torch.stack([(part.mean - mean) * part.count**0.5 for part in parts])
        return cls(count, mean, scatter.addmm_(apart.T, apart))

    def gaussian(self) -> Gaussian:
        """The normal law with this mean and the unbiased covariance. Raises ValueError for fewer than two items."""
        if self.count < 2:
            raise ValueError(f"A covariance needs the features of two images or more, got {self.count}.")
        return Gaussian(self.mean, self.scatter / (self.count - 1))


@dataclass(frozen=True)
class Normal:
    """The normal law of a set of features, and where the set's items are known, the moments of its parts, for intervals."""

    whole: Gaussian
    parts: Sequence[Moments] = ()

    @classmethod
    def of(cls, parts: Sequence[Moments]) -> "Normal":
        """Of a set in parts."""
        return cls(Moments.together(parts).gaussian(), tuple(parts))

    def without(self, part: int) -> Gaussian:
        """The law of the others when one part is left out."""
        return Moments.together([moments for place, moments in enumerate(self.parts) if place != part]).gaussian()
