"""Expectation-maximization over all points, a chunk at a time, with several restarts in the same matrix products.

Densities and responsibilities are float32 by default; sums over chunks, parameters and the likelihood are float64.

[0] Dempster et al., Maximum Likelihood from Incomplete Data via the EM Algorithm, 1977,
    https://doi.org/10.1111/j.2517-6161.1977.tb01600.x
[1] Bishop, Pattern Recognition and Machine Learning, 2006 (eqs. 9.23 to 9.26)
"""

from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from ldbench.analysis.gmm.densities import Densities
from ldbench.analysis.gmm.features import second_moments
from ldbench.analysis.gmm.mixture import Mixture
from ldbench.analysis.gmm.points import Points

EMPTY = 1e-6  # points; a component with fewer is left unchanged


@dataclass(frozen=True)
class Moments:
    """Sums of points weighted by responsibilities, float64, and the mean log-likelihood of a point before the
    M-step.
    """

    log_likelihood: Tensor  # (R,) nats
    counts: Tensor  # (R, K)
    shift: Tensor  # (R, K, D): the origin of the sums below
    first: Tensor  # (R, K, D): of x - shift
    # of its squares (R, K, D) or products (R, K, D, D); tied: of its products, over all components (R, D, D)
    second: Tensor


@dataclass(frozen=True)
class Fit:
    """R fitted mixtures with the state of their fits."""

    mixture: Mixture
    log_likelihood: Tensor  # (R,) nats, mean over training points at the last E-step
    iterations: Tensor  # (R,)
    converged: Tensor  # (R,) bool

    def best(self) -> "Fit":
        """The restart of highest likelihood, as a Fit of one mixture."""
        index = self.log_likelihood.argmax().reshape(1)
        return Fit(
            self.mixture.select(index), self.log_likelihood[index], self.iterations[index], self.converged[index]
        )


def fit(
    points: Points,
    start: Mixture,
    *,
    floor: float,  # added to every variance
    max_iter: int,
    tolerance: float,  # of the mean log-likelihood, in nats: a restart stops at a smaller change
    dtype: torch.dtype = torch.float32,
) -> Fit:
    """Mixtures of locally maximal likelihood [0] from `start`.

    Restarts are independent, and stop when they have converged.

    Raises ValueError for points that are not finite.
    """
    start = start.to(points.device)
    weights, means, covariances = start.weights.clone(), start.means.clone(), start.covariances.clone()
    likelihood = torch.full((start.num_restarts,), -torch.inf, dtype=torch.float64, device=points.device)
    iterations = torch.zeros(start.num_restarts, dtype=torch.int64, device=points.device)
    converged = torch.zeros(start.num_restarts, dtype=torch.bool, device=points.device)
    active = torch.arange(start.num_restarts, device=points.device)
    current = start
    for _ in range(max_iter):
        moments = expect(points, current, dtype=dtype)
        current = maximize(current, moments, floor=floor)
        weights[active], means[active], covariances[active] = current.weights, current.means, current.covariances
        converged[active] = (moments.log_likelihood - likelihood[active]).abs() < tolerance
        likelihood[active] = moments.log_likelihood
        iterations[active] += 1
        running = ~converged[active]
        if not running.any():
            break
        if not running.all():
            current, active = current.select(running.nonzero().flatten()), active[running]
    return Fit(Mixture(start.kind, weights, means, covariances), likelihood, iterations, converged)


def expect(points: Points, mixture: Mixture, *, dtype: torch.dtype) -> Moments:
    """The E-step over all points: moments weighted by responsibilities, eq. 9.23 of [1].

    Responsibilities are not stored.
    """
    densities = Densities(mixture, dtype=dtype)
    num, components = densities.shape
    dim, narrow = mixture.dim, densities.narrow
    float64: dict[str, Any] = {"dtype": torch.float64, "device": points.device}
    sums = torch.zeros(num * components, len(densities.coefficients), **float64)
    total = torch.zeros(num, **float64)
    narrow_first = torch.zeros(len(narrow), dim, **float64)
    narrow_second = torch.zeros(len(narrow), *((dim,) if mixture.kind == "diagonal" else (dim, dim)), **float64)
    products = torch.zeros(num, dim, dim, **float64)
    for x, phi in densities.iterate(points):
        joint = densities.log_joint(x, phi)
        share = joint.softmax(dim=-1)  # (n, R, K)
        # log p = log of joint over share, at the component of the largest share
        total += (joint.amax(dim=-1).double() - share.amax(dim=-1).double().log()).sum(dim=0)
        share = rearrange(share, "n r k -> n (r k)")
        sums += share.T @ phi.T
        for members, difference in densities.differences(x):
            weighted = share.T[narrow[members], :, None] * difference  # (g, n, D)
            narrow_first[members] += weighted.sum(dim=1)
            narrow_second[members] += (
                (weighted * difference).sum(dim=1) if mixture.kind == "diagonal" else weighted.mT @ difference
            )
        if mixture.kind == "tied" and not len(narrow):
            products += x.T @ x  # responsibilities add up to 1
        elif mixture.kind == "tied":
            # (R, n, 1)
            wide = rearrange(share.index_fill(1, narrow, 0), "n (r k) -> r n k", r=num).sum(dim=-1, keepdim=True)
            products += (wide * x).mT @ x
    if not total.isfinite().all():
        raise ValueError(
            "The likelihood of the points is not finite: they contain NaN, infinity, or numbers too large for float32."
        )
    shift = torch.zeros(num * components, dim, **float64)
    shift[narrow] = densities.narrow_means.double()
    first = sums[:, 1 : 1 + dim]
    first[narrow] = narrow_first
    second = products.index_add(0, narrow // components, narrow_second) if mixture.kind == "tied" else None
    if second is None:
        second = second_moments(mixture.kind, sums, dim)
        second[narrow] = narrow_second
        second = second.unflatten(0, (num, components))
    counts, shift, first = (t.unflatten(0, (num, components)) for t in (sums[:, 0], shift, first))
    return Moments(total / len(points), counts, shift, first, second)


def maximize(old: Mixture, moments: Moments, *, floor: float) -> Mixture:
    """The M-step, eqs. 9.24 to 9.26 of [1], with `floor` added to every variance.

    A component without points is left unchanged.
    """
    count = moments.counts[..., None].clamp(min=EMPTY)  # (R, K, 1)
    empty = moments.counts < EMPTY  # (R, K)
    offsets = moments.first / count
    means = torch.where(empty[..., None], old.means, moments.shift + offsets)
    weights = moments.counts.clamp(min=EMPTY)
    weights = weights / weights.sum(dim=1, keepdim=True)
    if old.kind == "diagonal":
        covariances = (moments.second / count - offsets.square()).clamp(min=0) + floor
        covariances = torch.where(empty[..., None], old.covariances, covariances)
    elif old.kind == "full":
        covariances = moments.second / count[..., None] - offsets[..., :, None] * offsets[..., None, :]
        covariances.diagonal(dim1=-2, dim2=-1).add_(floor)
        covariances = torch.where(empty[..., None, None], old.covariances, covariances)
    else:
        between = torch.einsum("rk,rkd,rke->rde", moments.counts, offsets, offsets)
        covariances = (moments.second - between) / moments.counts.sum(dim=1)[:, None, None]
        covariances.diagonal(dim1=-2, dim2=-1).add_(floor)
    return Mixture(old.kind, weights, means, covariances)
