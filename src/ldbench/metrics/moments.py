"""Moments: mean and covariance of features, accumulated in parts that can be merged in any order.

[0] Chan, Golub and LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979,
    http://i.stanford.edu/pub/cstr/reports/cs/tr/79/773/CS-TR-79-773.pdf
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

SMALLEST_PIVOT = 1e-9  # share of the largest variance below which a covariance is treated as rank-deficient


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian, whose covariance may have any rank."""

    mean: Tensor  # (D,) float64
    covariance: Tensor  # (D, D) float64

    @cached_property
    def root(self) -> Tensor:  # (r, D)
        """A factor R of the covariance R'R: by Cholesky for full rank, else by eigenvectors without those of
        rounding errors.
        """
        factor, failed = torch.linalg.cholesky_ex(self.covariance)
        largest = self.covariance.diagonal().max()
        if not failed and factor.diagonal().square().min() > SMALLEST_PIVOT * largest:
            return factor.T
        values, vectors = torch.linalg.eigh(self.covariance)
        significant = values > values[-1].clamp(min=0) * len(values) * torch.finfo(values.dtype).eps
        return (vectors[:, significant] * values[significant].sqrt()).T


@dataclass(frozen=True)
class Moments:
    """The number of items, their mean, and the scatter matrix: the sum of outer products of their deviations from
    the mean.
    """

    count: int
    mean: Tensor  # (D,) float64
    scatter: Tensor  # (D, D) float64

    @classmethod
    def of(
        cls,
        features: Tensor,  # (n, D)
    ) -> "Moments":
        """The moments of features, in float64."""
        features = features.double()
        mean = features.mean(dim=0) if len(features) else features.new_zeros(features.shape[1])
        centered = features - mean
        return cls(len(features), mean, centered.T @ centered)

    @classmethod
    def empty(cls, width: int) -> "Moments":
        """The moments of no items."""
        return cls(0, torch.zeros(width, dtype=torch.float64), torch.zeros(width, width, dtype=torch.float64))

    def merged(self, other: "Moments") -> "Moments":
        """The moments of the items of both [0]."""
        if not other.count or not self.count:
            return self if self.count else other
        count = self.count + other.count
        delta = other.mean - self.mean
        scatter = self.scatter + other.scatter
        scatter.addr_(delta, delta, alpha=self.count * other.count / count)
        return Moments(count, self.mean + delta * (other.count / count), scatter)

    def absorb(
        self,
        features: Tensor,  # (n, D)
    ) -> "Moments":
        """The moments with more items added. Updates the scatter matrix in place: do not use `self` afterwards."""
        if not len(features):
            return self
        features = features.double()
        mean, count = features.mean(dim=0), self.count + len(features)
        centered, delta = features - mean, mean - self.mean
        self.scatter.addmm_(centered.T, centered).addr_(delta, delta, alpha=self.count * len(features) / count)
        return Moments(count, self.mean + delta * (len(features) / count), self.scatter)

    @classmethod
    def merge_all(cls, parts: Sequence["Moments"]) -> "Moments":
        """The moments of the items of all parts [0], with one matrix product."""
        count = sum(part.count for part in parts)
        mean = sum((part.mean * (part.count / max(count, 1)) for part in parts), torch.zeros_like(parts[0].mean))
        scatter = torch.zeros_like(parts[0].scatter)
        for part in parts:
            scatter += part.scatter
        deltas = torch.stack([(part.mean - mean) * part.count**0.5 for part in parts])
        return cls(count, mean, scatter.addmm_(deltas.T, deltas))

    def gaussian(self) -> Gaussian:
        """The Gaussian with this mean and the unbiased covariance. Raises ValueError for fewer than two items."""
        if self.count < 2:
            raise ValueError(f"A covariance needs the features of at least two images, got {self.count}.")
        return Gaussian(self.mean, self.scatter / (self.count - 1))


@dataclass(frozen=True)
class SetGaussian:
    """The Gaussian of a set of features, and for intervals the moments of the set's parts, where its items are
    known.
    """

    whole: Gaussian
    parts: Sequence[Moments] = ()

    @classmethod
    def of(cls, parts: Sequence[Moments]) -> "SetGaussian":
        """The Gaussian of a set by its parts."""
        return cls(Moments.merge_all(parts).gaussian(), tuple(parts))

    def without(self, *left_out: int) -> Gaussian:
        """The Gaussian of the set without some parts."""
        return Moments.merge_all([part for index, part in enumerate(self.parts) if index not in left_out]).gaussian()
