"""PCA whitening to a fixed number of dimensions: the basis in which latents of different tokenizers and scales are
comparable.

[0] Halko et al., Finding Structure with Randomness, 2011, https://doi.org/10.1137/090771806 (subspace iteration, alg.
    4.4)
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

EXACT = 4096  # numbers of a latent up to which the full covariance is computed
PASSES = 4  # of subspace iteration
OVERSAMPLING = 16  # extra directions in subspace iteration
CONSTANT = 1e-10  # share of the largest variance below which a direction counts as constant

Chunks = Callable[[], Iterator[Tensor]]  # one pass over (n, F) float32


@dataclass(frozen=True)
class Whitening:
    """x -> (x - mean) @ basis, with mean 0 and unit covariance over the points that it was computed from."""

    mean: Tensor  # (F,) float64
    basis: Tensor  # (F, D) float64
    variance_kept: float  # share of the total variance in the D directions

    @property
    def dim(self) -> int:
        """D."""
        return self.basis.shape[1]

    def __call__(
        self,
        x: Tensor,  # (n, F)
    ) -> Tensor:  # (n, D) float32
        """The whitened points."""
        return ((x - self.mean.to(x)) @ self.basis.to(x)).float()

    def of_unscaled(
        self,
        mean: Tensor,  # (F,)
        std: Tensor,  # (F,)
    ) -> "Whitening":
        """The same map of x * std + mean."""
        return Whitening(mean + std * self.mean, self.basis / std[:, None], self.variance_kept)

    def variance_share(self, chunks: Chunks) -> float:
        """The share of the variance of other points about this mean in the D directions."""
        directions = self.basis / self.basis.norm(dim=0)
        kept = total = 0.0
        for chunk in chunks():
            x = chunk.double() - self.mean.to(chunk.device)
            total += x.square().sum().item()
            kept += (x @ directions.to(x.device)).square().sum().item()
        return kept / total


def whiten(chunks: Chunks, *, dim: int, rng: torch.Generator) -> Whitening:
    """The leading `dim` principal directions of points, scaled to variance 1; statistics in float64, the same for any
    chunks.

    Up to 4096 numbers a point by the full covariance; beyond, by subspace iteration [0] in four more passes, started
    from `rng`. Raises ValueError for a `dim` beyond the rank of the points, and for points that are not finite.
    """
    count, mean = mean_of(chunks)
    width = len(mean)
    if dim > width:
        raise ValueError(f"The points have {width} numbers each, and dim={dim} is more. Choose dim of at most {width}.")
    if width <= EXACT:
        covariance = torch.zeros(width, width, dtype=torch.float64, device=mean.device)
        for chunk in chunks():
            x = chunk.double() - mean
            covariance += x.T @ x / count
        values, vectors = leading(covariance, dim)
        total = covariance.trace()
    else:
        values, vectors, total = subspace_iteration(chunks, mean, count, dim=dim, rng=rng)
    rank = int((values > CONSTANT * values[0]).sum()) if values[0] > 0 else 0
    if rank < dim:
        raise ValueError(
            f"The {count} training points vary in {rank} directions only, and dim={dim} is more. "
            f"Choose dim of at most {rank}."
        )
    return Whitening(mean.cpu(), (vectors * signs(vectors) / values.sqrt()).cpu(), (values.sum() / total).item())


def mean_of(chunks: Chunks) -> tuple[int, Tensor]:  # (F,) float64
    """The number of points, and their mean."""
    count, total = 0, torch.zeros(())
    for chunk in chunks():
        total = total.to(chunk.device) + chunk.double().sum(dim=0)
        count += len(chunk)
    if not total.isfinite().all():
        raise ValueError("The latents contain NaN or infinity. Check the tokenizer before measuring it.")
    return count, total / count


def leading(
    covariance: Tensor,  # (F, F)
    dim: int,
) -> tuple[Tensor, Tensor]:  # (D,), (F, D)
    """The largest eigenvalues in descending order, and their eigenvectors."""
    values, vectors = torch.linalg.eigh(covariance)
    return values.flip(0)[:dim], vectors.flip(1)[:, :dim]


def subspace_iteration(
    chunks: Chunks,
    mean: Tensor,  # (F,)
    count: int,
    *,
    dim: int,
    rng: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:  # (D,), (F, D), ()
    """Leading variances and directions, and the total variance, without the (F, F) covariance [0]."""
    width = min(len(mean), dim + OVERSAMPLING)
    basis = torch.linalg.qr(torch.randn(len(mean), width, generator=rng, dtype=torch.float64).to(mean.device)).Q
    for _ in range(PASSES):
        image, total = torch.zeros_like(basis), torch.zeros((), dtype=torch.float64, device=mean.device)
        for chunk in chunks():
            x = chunk.double() - mean
            image += x.T @ (x @ basis) / count
            total += x.square().sum() / count
        basis = torch.linalg.qr(image).Q
    inner = torch.zeros(width, width, dtype=torch.float64, device=mean.device)
    for chunk in chunks():
        projected = (chunk.double() - mean) @ basis
        inner += projected.T @ projected / count
    values, vectors = leading(inner, dim)
    return values, basis @ vectors, total


def signs(
    vectors: Tensor,  # (F, D)
) -> Tensor:  # (D,)
    """The signs that make the largest entry of each direction positive."""
    return vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True)).sign()[0]
