"""Distances between two sets of features, in float64.

[0] Dowson and Landau, The Frechet Distance between Multivariate Normal Distributions, 1982, https://doi.org/10.1016/0047-259X(82)90077-X
[1] Heusel et al., GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium, 2017, https://arxiv.org/abs/1706.08500
"""

import torch
from torch import Tensor


def frechet_distance(
    a: Tensor,  # (n, D)
    b: Tensor,  # (m, D)
) -> float:
    """The squared Frechet distance [0] of the Gaussians with the means and (unbiased) covariances of two sets of features; FID's formula [1].

    |mean_a - mean_b|^2 + tr cov_a + tr cov_b - 2 tr (cov_a^1/2 cov_b cov_a^1/2)^1/2. With cov = R'R the last trace is the sum of the
    singular values of R_a R_b', whatever the factors: no square root of a matrix is taken, covariances may have any rank, and the
    distance of equal Gaussians is zero to rounding; that of equal sets is zero.
    Raises ValueError for fewer than two items and for features that are not finite.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(f"A Frechet distance compares features (n, D) and (m, D) of two items or more, got {tuple(a.shape)} and {tuple(b.shape)}.")
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        raise ValueError("Features hold numbers that are not finite (NaN or infinity). Look at the images before measuring them.")
    if torch.equal(a, b):
        return 0.0
    (mean_a, root_a), (mean_b, root_b) = moments(a), moments(b)
    means = (mean_a - mean_b).square().sum()
    spread = root_a.square().sum() + root_b.square().sum() - 2 * torch.linalg.svdvals(root_a @ root_b.T).sum()
    return max(0.0, (means + spread).item())


def moments(features: Tensor) -> tuple[Tensor, Tensor]:  # (n, D) -> (D,), (min(n, D), D)
    """The mean, and a factor R of the covariance R'R: that of the centred features' QR decomposition."""
    features = features.double()
    mean = features.mean(dim=0)
    return mean, torch.linalg.qr(features - mean, mode="r").R / (len(features) - 1) ** 0.5
