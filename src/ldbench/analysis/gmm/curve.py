"""Curves over the number of components: how well mixtures of a growing size describe points that they were not fitted to.

[0] Schwarz, Estimating the Dimension of a Model, 1978, https://doi.org/10.1214/aos/1176344136 (BIC)
[1] Akaike, A New Look at the Statistical Model Identification, 1974, https://doi.org/10.1109/TAC.1974.1100705 (AIC)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ldbench.analysis.gmm.densities import log_densities
from ldbench.analysis.gmm.em import fit
from ldbench.analysis.gmm.mixture import Kind, Mixture
from ldbench.analysis.gmm.points import Points
from ldbench.analysis.gmm.start import start

POINTS_PER_COMPONENT = 10


@dataclass(frozen=True)
class Way:
    """How mixtures are fitted."""

    kind: Kind
    num_restarts: int
    max_iter: int
    tolerance: float  # of the mean log-likelihood of a point, in nats
    floor: float  # added to every variance


@dataclass(frozen=True)
class Fitted:
    """One mixture, and what it says of the points that it was fitted to and of others. Everything is in nats."""

    mixture: Mixture  # one
    train_nll: float  # of a training point, in the mean
    heldout_nll: Tensor  # (m,) float64, of each held-out point
    bic: float
    aic: float
    iterations: int
    converged: bool


def affordable(sizes: Sequence[int], num_points: int) -> list[int]:
    """The numbers of components of which each has ten points at least."""
    return [size for size in sizes if size * POINTS_PER_COMPONENT <= num_points]


def fitted(train: Points, heldout: Points, *, num_components: int, way: Way, seed: int) -> Fitted:
    """The likeliest of several restarts, measured."""
    rng = torch.Generator().manual_seed(seed)
    begun = start(
        train, way.kind, num_components=num_components, num_restarts=way.num_restarts, floor=way.floor, rng=rng
    )
    found = fit(train, begun, floor=way.floor, max_iter=way.max_iter, tolerance=way.tolerance).best()
    return measured(found.mixture, train, heldout, iterations=int(found.iterations), converged=bool(found.converged))


def single(train: Points, heldout: Points, *, floor: float) -> Fitted:
    """One Gaussian of full covariance: the mean and the covariance of the training points, with `floor` added to the variances."""
    dim = train.dim
    eye = torch.eye(dim, dtype=torch.float64)[None, None]
    anything = Mixture("full", torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dim, dtype=torch.float64), eye)
    return measured(
        fit(train, anything, floor=floor, max_iter=1, tolerance=0.0).mixture,
        train,
        heldout,
        iterations=1,
        converged=True,
    )


def measured(mixture: Mixture, train: Points, heldout: Points, *, iterations: int, converged: bool) -> Fitted:
    """Its likelihoods and criteria [0, 1]: twice the summed training NLL, and for each parameter log n, or 2."""
    total = -sum(part.sum().item() for part in log_densities(mixture, train))
    others = -torch.cat([part[:, 0].cpu() for part in log_densities(mixture, heldout)])
    parameters = mixture.num_parameters()
    return Fitted(
        mixture=mixture,
        train_nll=total / len(train),
        heldout_nll=others,
        bic=2 * total + parameters * math.log(len(train)),
        aic=2 * total + 2 * parameters,
        iterations=iterations,
        converged=converged,
    )
