"""Log-densities of points under mixture components by a matrix product, or by differences from the mean where that
loses precision.
"""

import math
from collections.abc import Iterator

import torch
from einops import rearrange
from torch import Tensor

from ldbench.analysis.gmm.features import coefficients, features, num_features
from ldbench.analysis.gmm.mixture import Mixture
from ldbench.analysis.gmm.points import Points

MAX_CANCELLATION = 2e-4  # nats that the matrix product may lose by cancellation for a point at the mean
CHUNK_NUMBERS = {"cpu": 1 << 20, "cuda": 1 << 27}  # numbers processed at a time
DIFFERENCE_NUMBERS = 1 << 20  # numbers of differences computed at a time


class Densities:
    """The densities of mixtures, prepared for many points in the precision `dtype`.

    -(x - m)^T P (x - m) / 2 is expanded. In float32 this suffers from cancellation for components that are narrow
    compared with their distance from 0; such components, `narrow`, are computed by differences instead, which is slower
    and accurate.
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
        self.narrow = (cancelling.flatten() * torch.finfo(dtype).eps > MAX_CANCELLATION).nonzero().flatten()  # (M,)
        self.narrow_means = means.flatten(0, 1)[self.narrow].to(dtype)
        self.narrow_constants = constant.flatten()[self.narrow].to(dtype)
        self.common_factors = factors.to(dtype) if self.kind == "tied" else None  # (R, D, D)
        spread = factors[:, None].expand(*self.shape, *factors.shape[1:]) if self.kind == "tied" else factors
        self.narrow_factors = spread.flatten(0, 1)[self.narrow].to(dtype)

    @property
    def chunk(self) -> int:
        """The number of points to process at a time."""
        numbers = num_features(self.kind, self.dim) + self.coefficients.shape[1]
        return max(256, CHUNK_NUMBERS[self.coefficients.device.type] // numbers)

    def iterate(self, points: Points) -> Iterator[tuple[Tensor, Tensor]]:
        """Chunks of points (n, D) with their features (F, n), whose memory is reused for the next chunk."""
        out = torch.empty(
            num_features(self.kind, self.dim), min(self.chunk, len(points)), dtype=self.dtype, device=points.device
        )
        for chunk in points.chunks(self.chunk):
            x = chunk.to(self.dtype)
            yield x, features(x, self.kind, out=out)

    def log_joint(
        self,
        x: Tensor,  # (n, D)
        phi: Tensor,  # (F, n): its features
    ) -> Tensor:  # (n, R, K)
        """log(weight * density) of each component."""
        flat = phi.T @ self.coefficients
        joint = rearrange(flat, "n (r k) -> n r k", r=self.shape[0])
        if self.common_factors is not None:
            joint -= (x @ self.common_factors).square().sum(dim=-1).T[..., None] / 2
        for members, difference in self.differences(x):
            factors = self.narrow_factors[members]
            white = difference * factors[:, None] if self.kind == "diagonal" else difference @ factors
            flat[:, self.narrow[members]] = (self.narrow_constants[members, None] - white.square().sum(dim=-1) / 2).T
        return joint

    def differences(
        self,
        x: Tensor,  # (n, D)
    ) -> Iterator[tuple[Tensor, Tensor]]:  # (g,), (g, n, D)
        """Differences of the points from the means of the narrow components, some components at a time."""
        for members in torch.arange(len(self.narrow), device=x.device).split(
            max(1, DIFFERENCE_NUMBERS // max(1, x.numel()))
        ):
            yield members, x - self.narrow_means[members, None]


def log_densities(mixture: Mixture, points: Points, *, dtype: torch.dtype = torch.float32) -> Iterator[Tensor]:
    """log p of each point under each of R mixtures, by chunk: (n, R) float64, in nats."""
    densities = Densities(mixture.to(points.device), dtype=dtype)
    for x, phi in densities.iterate(points):
        yield densities.log_joint(x, phi).double().logsumexp(dim=-1)
