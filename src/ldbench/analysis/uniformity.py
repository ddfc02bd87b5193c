"""Uniformity: how evenly latents fill the plane in a t-SNE embedding.

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
    """Statistics of the density at the points themselves, averaged over embeddings."""

    cv: float  # standard deviation over mean: 0 for uniform
    gini: float  # 0 for uniform, towards 1 for all mass in one point
    entropy: float  # over its maximum log n: 1 for uniform


def uniformity(
    features: Tensor,  # (n, D)
    *,
    perplexity: float,
    seeds: Sequence[int],
) -> Uniformity:
    """Table 6 of [0], averaged over t-SNE embeddings from random initializations.

    [0] gives neither the number of points nor the bandwidth; its numbers fit a density at about 1000 points: for small
    deviations the entropy is 1 - cv^2 / (2 log n), and its three rows give n of about 1000. Entropy and gini depend on
    n, so that other n are not comparable.
    Raises ValueError for no seeds, and for too few points for the perplexity.
    """
    if not seeds or perplexity >= len(features):
        raise ValueError(
            f"t-SNE needs at least one seed, and more points than its perplexity {perplexity}, got {len(seeds)} and "
            f"{len(features)}."
        )
    results = [density_statistics(density(embed(features, perplexity=perplexity, seed=seed))) for seed in seeds]
    return Uniformity(
        *(sum(getattr(one, name) for one in results) / len(results) for name in ("cv", "gini", "entropy"))
    )


def embed(features: Tensor, *, perplexity: float, seed: int) -> Tensor:  # (n, 2)
    """A t-SNE embedding in the plane from a random initialization."""
    tsne = TSNE(n_components=2, perplexity=perplexity, init="random", random_state=seed)
    return torch.from_numpy(tsne.fit_transform(features.double().numpy())).double()


def density(
    points: Tensor,  # (n, 2)
) -> Tensor:  # (n,)
    """A Gaussian kernel density estimate at its own points, with their covariance times n^(-1/3), the square of
    Scott's factor [1].
    """
    centered = points - points.mean(dim=0)
    covariance = centered.T @ centered / (len(points) - 1) * len(points) ** (-1 / 3)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), centered.T, upper=False).T
    kernel = (-0.5 * torch.cdist(white, white).square()).exp()
    return kernel.mean(dim=1) / (2 * math.pi * torch.linalg.det(covariance).sqrt())


def density_statistics(
    density: Tensor,  # (n,) positive
) -> Uniformity:
    """Coefficient of variation, Gini coefficient, and normalized entropy of the densities over their sum."""
    n, share = len(density), (density / density.sum()).sort().values
    rank = torch.arange(1, n + 1, dtype=density.dtype)
    gini = (2 * (rank * share).sum() - (n + 1)) / n
    entropy = torch.special.entr(share).sum() / math.log(n)
    return Uniformity(cv=(density.std(correction=0) / density.mean()).item(), gini=gini.item(), entropy=entropy.item())
