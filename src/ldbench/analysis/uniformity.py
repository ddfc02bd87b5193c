"""Uniformity: how evenly latents fill the plane that t-SNE lays them out in.

[0] Yao et al., Reconstruction vs. Generation, 2025, https://arxiv.org/abs/2501.01423 (Table 6)
[1] Scott, Multivariate Density Estimation, 1992, https://doi.org/10.1002/9780470316849
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from sklearn.manifold import TSNE
from torch import Tensor


@dataclass(frozen=True)
class Uniformity:
    """Figures of the density at the points themselves; means over the layouts."""

    cv: float  # standard deviation over mean: 0 for even
    gini: float  # 0 for even, towards 1 for all in one
    entropy: float  # over its largest value, log n: 1 for even


def uniformity(
    features: Tensor,  # (n, D)
    *,
    perplexity: float,
    seeds: Sequence[int],
) -> Uniformity:
    """Table 6 of [0], averaged over layouts from random beginnings, since one layout is an accident.

    [0] tells neither the number of points nor the bandwidth; its figures fit the density at about 1000 points: for small deviations the entropy is
    1 - cv^2 / (2 log n), and its three rows give n of about 1000. Figures of another n are not comparable: entropy and gini depend on it.
    Raises ValueError for no seeds, and for too few points for the perplexity.
    """
    if not seeds or perplexity >= len(features):
        raise ValueError(
            f"t-SNE needs a seed or more, and more points than its perplexity {perplexity}, got {len(seeds)} and {len(features)}."
        )
    found = [evenness(density(layout(features, perplexity=perplexity, seed=seed))) for seed in seeds]
    return Uniformity(*(sum(getattr(one, name) for one in found) / len(found) for name in ("cv", "gini", "entropy")))


def layout(features: Tensor, *, perplexity: float, seed: int) -> Tensor:  # (n, 2)
    """t-SNE in the plane from a random beginning."""
    tsne = TSNE(n_components=2, perplexity=perplexity, init="random", random_state=seed)
    return torch.from_numpy(tsne.fit_transform(features.double().numpy())).double()


def density(
    points: Tensor,  # (n, 2)
) -> Tensor:  # (n,)
    """A Gaussian kernel density at its own points: the kernel has their covariance, times n^(-1/3), which is the square of Scott's factor [1]."""
    centred = points - points.mean(dim=0)
    covariance = centred.T @ centred / (len(points) - 1) * len(points) ** (-1 / 3)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), centred.T, upper=False).T
    kernel = (-0.5 * torch.cdist(white, white).square()).exp()
    return kernel.mean(dim=1) / (2 * math.pi * torch.linalg.det(covariance).sqrt())


def evenness(
    density: Tensor,  # (n,) positive
) -> Uniformity:
    """Coefficient of variation, Gini coefficient, and normalised entropy of the densities over their sum."""
    n, share = len(density), (density / density.sum()).sort().values
    rank = torch.arange(1, n + 1, dtype=density.dtype)
    gini = (2 * (rank * share).sum() - (n + 1)) / n
    entropy = torch.special.entr(share).sum() / math.log(n)
    return Uniformity(cv=(density.std(correction=0) / density.mean()).item(), gini=gini.item(), entropy=entropy.item())
