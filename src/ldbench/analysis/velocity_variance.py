"""Velocity irreducible variance: how much of the velocity of latents no generator can predict, because the straight
lines from noise to latents cross.

[0] Zhong et al., Diffusing in the Right Space: A Systematic Study of Latent Diffusability, 2026,
    https://arxiv.org/abs/2606.03578
[1] Dutilleul, The MLE Algorithm for the Matrix Normal Distribution, 1999, https://doi.org/10.1080/00949659908811970
    (flip-flop)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor

from ldbench.core.estimate import Estimate
from ldbench.core.intervals import debiased_jackknife

PARTS = 10  # of a class's images in the jackknife
SETTLED = 1e-6  # relative change of the mean root eigenvalue below which the flip-flop stops

Structure = Literal["full", "kronecker"]


@dataclass(frozen=True)
class KroneckerSpectrum:
    """The eigenvalues of a covariance that is the Kronecker product of one over tokens and one over channels."""

    spatial: Tensor  # (N,) float64, of mean 1
    channel: Tensor  # (C,) float64
    change: float  # of the mean root eigenvalue in the last iteration, relative

    @property
    def eigenvalues(self) -> Tensor:  # (N C,)
        """Those of the whole covariance."""
        return torch.outer(self.spatial, self.channel).flatten()


def irreducible_variance(
    eigenvalues: Tensor,  # (D,) of the covariance of latents, at least 0
) -> float:
    """(pi / 2) times the mean square root of the eigenvalues [0]: per number of a latent.

    For latents of N(mu, Sigma), x = t z + (1 - t) noise and t uniform in [0, 1], this is the mean over t of the
    variance of the velocity z - noise given x: an eigenvalue l adds l / ((1 - t)^2 + t^2 l) at t. It is pi / 2 for
    independent numbers of variance 1. Latents that are not normal and have the same covariance have less.
    """
    return math.pi / 2 * eigenvalues.clamp_min(0).sqrt().mean().item()


def choose_structure(num_images: int, num_tokens: int, channels: int) -> Structure:
    """`kronecker` where a latent has more numbers than half the images of its class, else `full`, as in [0]."""
    return "kronecker" if num_tokens * channels > num_images / 2 else "full"


def smallest_class(structure: Structure, num_tokens: int, channels: int) -> int:
    """The number of images that a covariance needs, for it to exist without a tenth of them."""
    needed = 2 + (
        num_tokens * channels if structure == "full" else math.ceil(num_tokens / channels + channels / num_tokens)
    )
    return max(3, needed + math.ceil(needed / (PARTS - 1)))


def full_spectrum(
    z: Tensor,  # (n, N, C)
) -> Tensor:  # (N C,) float64
    """The eigenvalues of the sample covariance."""
    return torch.linalg.eigvalsh(z.double().flatten(1).T.cov().reshape(z[0].numel(), -1)).clamp_min(0)


def kronecker_spectrum(
    z: Tensor,  # (n, N, C)
    *,
    iterations: int,  # at most; fewer where the mean root eigenvalue has settled
    ridge: float,  # added to the eigenvalues of both factors, relative to their mean
) -> KroneckerSpectrum:
    """The eigenvalues of the Kronecker covariance of largest likelihood, by the flip-flop algorithm [1], scaled so that
    their sum is the total variance of the latents.

    Each factor is in turn the covariance of latents that the other one has whitened.
    """
    x = z.double()
    x = x - x.mean(dim=0)
    total = x.square().sum().item() / (len(x) - 1)
    num_tokens, channels = x.shape[1:]
    if total == 0:
        return KroneckerSpectrum(x.new_ones(num_tokens), x.new_zeros(channels), 0.0)
    channel = torch.eye(channels, dtype=x.dtype, device=x.device)
    change, mean_root = math.inf, 0.0
    for _ in range(iterations):
        spatial = with_ridge(whitened_covariance(x.mT, channel), ridge)
        channel = with_ridge(whitened_covariance(x, spatial), ridge)
        values = [torch.linalg.eigvalsh(factor) for factor in (spatial, channel)]
        before, mean_root = mean_root, math.prod((one.sqrt().mean() / one.mean().sqrt()).item() for one in values)
        change = abs(mean_root - before) / mean_root
        if change < SETTLED:
            break
    return KroneckerSpectrum(values[0], values[1] * total / (num_tokens * values[1].sum()), change)


def whitened_covariance(
    x: Tensor,  # (n, R, D)
    factor: Tensor,  # (R, R)
) -> Tensor:  # (D, D)
    """The mean product of columns, over items and rows, of items whose rows the factor whitens."""
    rows = torch.linalg.solve_triangular(torch.linalg.cholesky(factor), rearrange(x, "n r d -> r (n d)"), upper=False)
    rows = rearrange(rows, "r (n d) -> (r n) d", n=len(x))
    return rows.T @ rows / len(rows)


def with_ridge(covariance: Tensor, ridge: float) -> Tensor:
    """The covariance scaled to a mean eigenvalue of 1, with the ridge added."""
    mean = covariance.diagonal().mean()
    return (covariance / mean + ridge * torch.eye(len(covariance)).to(covariance)) / (1 + ridge)


def velocity_variance(
    z: Tensor,  # (n, N, C) latents of one class, each channel of variance 1 over all classes
    spectrum: Callable[[Tensor], Tensor],  # latents -> eigenvalues of their covariance
    *,
    rng: torch.Generator,
) -> Estimate:
    """The irreducible variance of one class, with an interval over its images.

    The mean root of sample eigenvalues is too small, by about D / (8 n) of it for D equal eigenvalues and n images.
    The jackknife over tenths of the images takes off what is of order 1 / n. What remains is below 1 % at D = n / 2,
    the most that `choose_structure` allows, and is not in the interval (`tests/simulations/test_velocity_variance.py`).
    Raises ValueError for fewer than three images, and for latents that are not finite.
    """
    if len(z) < 3:
        raise ValueError(f"The variance of a class's velocities needs at least three images, got {len(z)}.")
    if not torch.isfinite(z).all():
        raise ValueError("The latents contain NaN or infinity. Check the tokenizer before measuring it.")
    part = (torch.randperm(len(z), generator=rng) % PARTS).to(z.device)
    parts = range(min(PARTS, len(z)))
    return debiased_jackknife(
        irreducible_variance(spectrum(z)),
        [irreducible_variance(spectrum(z[part != one])) for one in parts],
        [int((part == one).sum()) for one in parts],
    )
