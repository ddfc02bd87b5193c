"""Curves over the number of components: how well mixtures of growing size describe held-out points.

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
from ldbench.analysis.gmm.start import initialize

POINTS_PER_COMPONENT = 10


@dataclass(frozen=True)
class FitSettings:
    """How mixtures are fitted."""

    kind: Kind
    num_restarts: int
    max_iter: int
    tolerance: float  # of the mean log-likelihood of a point, in nats
    floor: float  # added to every variance


@dataclass(frozen=True)
class FittedMixture:
    """A mixture, with its likelihoods of training and held-out points in nats."""

    mixture: Mixture  # a single one
    train_nll: float  # mean over training points
    heldout_nll: Tensor  # (m,) float64, of each held-out point
    bic: float
    aic: float
    iterations: int
    converged: bool


def affordable_sizes(sizes: Sequence[int], num_points: int) -> list[int]:
    """The numbers of components with at least ten points per component."""
    return [size for size in sizes if size * POINTS_PER_COMPONENT <= num_points]


def fit_mixture(
    train: Points, heldout: Points, *, num_components: int, settings: FitSettings, seed: int
) -> FittedMixture:
    """The mixture of highest likelihood among several restarts."""
    rng = torch.Generator().manual_seed(seed)
    initial = initialize(
        train,
        settings.kind,
        num_components=num_components,
        num_restarts=settings.num_restarts,
        floor=settings.floor,
        rng=rng,
    )
    best = fit(train, initial, floor=settings.floor, max_iter=settings.max_iter, tolerance=settings.tolerance).best()
    return evaluate(best.mixture, train, heldout, iterations=int(best.iterations), converged=bool(best.converged))


def fit_single_gaussian(train: Points, heldout: Points, *, floor: float) -> FittedMixture:
    """One Gaussian with the mean and the full covariance of the training points, and `floor` added to the variances."""
    dim = train.dim
    eye = torch.eye(dim, dtype=torch.float64)[None, None]
    initial = Mixture("full", torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dim, dtype=torch.float64), eye)
    return evaluate(
        fit(train, initial, floor=floor, max_iter=1, tolerance=0.0).mixture,
        train,
        heldout,
        iterations=1,
        converged=True,
    )


def evaluate(mixture: Mixture, train: Points, heldout: Points, *, iterations: int, converged: bool) -> FittedMixture:
    """Likelihoods and information criteria [0, 1]: twice the summed training NLL plus log n (BIC) or 2 (AIC) per
    parameter.
    """
    total = -sum(part.sum().item() for part in log_densities(mixture, train))
    heldout_nll = -torch.cat([part[:, 0].cpu() for part in log_densities(mixture, heldout)])
    parameters = mixture.num_parameters()
    return FittedMixture(
        mixture=mixture,
        train_nll=total / len(train),
        heldout_nll=heldout_nll,
        bic=2 * total + parameters * math.log(len(train)),
        aic=2 * total + 2 * parameters,
        iterations=iterations,
        converged=converged,
    )
