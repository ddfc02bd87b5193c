"""Log-densities of points under the components of mixtures, by one matrix product; by differences from the mean where that would lose digits."""

import math
from collections.abc import Iterator

import torch
from einops import rearrange
from torch import Tensor

from ldbench.analysis.gmm.features import coefficients, features, num_features
from ldbench.analysis.gmm.mixture import Mixture
from ldbench.analysis.gmm.points import Points

LARGEST_LOSS = (
    2e-4  # nats that the terms of a matrix product may lose in cancelling each other, for a point at the mean
)
CACHED = {"cpu": 1 << 20, "cuda": 1 << 27}  # numbers that are worked on at once
GROUP = 1 << 20  # numbers of differences that are made at once


class Densities:
    """The densities of mixtures, prepared for many points in the precision `dtype`.

    -(x - m)^T P (x - m) / 2 is multiplied out. In float32 the parts of a component far from 0 for its width are much larger than what they come
    to; such components, `close`, are computed by differences instead, which takes longer and loses nothing.
    """

    def __init__(self, mixture: Mixture, *, dtype: torch.dtype):
        self.kind = mixture.kind
        self.dim = mixture.dim
        self.shape = (mixture.num_restarts, mixture.num_components)
        self.dtype = dtype
        factors = mixture.factors()
        means = mixture.means
        if self.kind == "diagonal":
            half_logdet = factors.log().sum(dim=-1)  # (R, K)
            precision = factors.square()
            linear = precision * means
            size = (linear * means).sum(dim=-1)
            cancelling = size
        else:
            half_logdet = factors.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
            precision = factors @ factors.mT
            each = "r k d e" if self.kind == "full" else "r d e"
            linear = torch.einsum(f"{each}, r k e -> r k d".replace(" ", ""), precision, means)
            size = (linear * means).sum(dim=-1)
            cancelling = torch.einsum(
                f"{each}, r k d, r k e -> r k".replace(" ", ""), precision.abs(), means.abs(), means.abs()
            )
            half_logdet = half_logdet if self.kind == "full" else half_logdet[:, None]
        constant = half_logdet + mixture.weights.log() - self.dim / 2 * math.log(2 * math.pi)  # (R, K), at the mean
        flat = [t.flatten(0, 1) for t in (linear, constant - size / 2)]
        self.coefficients = coefficients(self.kind, flat[0], precision.flatten(0, 1), flat[1]).to(dtype)  # (F, R K)
        self.close = (cancelling.flatten() * torch.finfo(dtype).eps > LARGEST_LOSS).nonzero().flatten()  # (M,)
        self.close_means = means.flatten(0, 1)[self.close].to(dtype)
        self.close_constants = constant.flatten()[self.close].to(dtype)
        self.common_factors = factors.to(dtype) if self.kind == "tied" else None  # (R, D, D)
        spread = factors[:, None].expand(*self.shape, *factors.shape[1:]) if self.kind == "tied" else factors
        self.close_factors = spread.flatten(0, 1)[self.close].to(dtype)

    @property
    def chunk(self) -> int:
        """How many points are best looked at together."""
        numbers = num_features(self.kind, self.dim) + self.coefficients.shape[1]
        return max(256, CACHED[self.coefficients.device.type] // numbers)

    def passes(self, points: Points) -> Iterator[tuple[Tensor, Tensor]]:
        """Each chunk of points (n, D) with its features (F, n); the features' memory is used again for the next."""
        out = torch.empty(
            num_features(self.kind, self.dim), min(self.chunk, len(points)), dtype=self.dtype, device=points.device
        )
        for chunk in points.chunks(self.chunk):
            x = chunk.to(self.dtype)
            yield x, features(x, self.kind, out=out)

    def log_joint(
        self,
        x: Tensor,  # (n, D)
        seen: Tensor,  # (F, n): its features
    ) -> Tensor:  # (n, R, K)
        """log of weight times density of each component."""
        flat = seen.T @ self.coefficients
        joint = rearrange(flat, "n (r k) -> n r k", r=self.shape[0])
        if self.common_factors is not None:
            joint -= (x @ self.common_factors).square().sum(dim=-1).T[..., None] / 2
        for members, difference in self.differences(x):
            factors = self.close_factors[members]
            white = difference * factors[:, None] if self.kind == "diagonal" else difference @ factors
            flat[:, self.close[members]] = (self.close_constants[members, None] - white.square().sum(dim=-1) / 2).T
        return joint

    def differences(
        self,
        x: Tensor,  # (n, D)
    ) -> Iterator[tuple[Tensor, Tensor]]:  # (g,), (g, n, D)
        """The points' differences from the means of the close components, some components at a time."""
        for members in torch.arange(len(self.close), device=x.device).split(max(1, GROUP // max(1, x.numel()))):
            yield members, x - self.close_means[members, None]


def log_densities(mixture: Mixture, points: Points, *, dtype: torch.dtype = torch.float32) -> Iterator[Tensor]:
    """log p of each point under each of R mixtures, chunk after chunk: (n, R) float64, in nats."""
    densities = Densities(mixture.to(points.device), dtype=dtype)
    for x, seen in densities.passes(points):
        yield densities.log_joint(x, seen).double().logsumexp(dim=-1)
