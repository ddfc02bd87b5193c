"""Gaussian mixtures: a batch of mixtures of the same size, one for each restart.

[0] McLachlan and Peel, Finite Mixture Models, 2000, https://doi.org/10.1002/0471721182
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Kind = Literal["diagonal", "full", "tied"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Mixture:
    """R mixtures of K Gaussians in D dimensions, in float64. The weights of each sum to 1.

    Raises ValueError for shapes that do not match.
    """

    kind: Kind
    weights: Tensor  # (R, K)
    means: Tensor  # (R, K, D)
    covariances: Tensor  # diagonal: variances (R, K, D); full: (R, K, D, D); tied, one for all components: (R, D, D)

    def __post_init__(self) -> None:
        num, components, dim = self.means.shape
        expected = {"diagonal": (num, components, dim), "full": (num, components, dim, dim), "tied": (num, dim, dim)}
        if self.kind not in expected:
            raise ValueError(f"The covariance of a mixture must be one of {', '.join(KINDS)}, got {self.kind!r}.")
        if tuple(self.weights.shape) != (num, components) or tuple(self.covariances.shape) != expected[self.kind]:
            raise ValueError(
                f"Means of shape {tuple(self.means.shape)} go with weights of shape {(num, components)} and "
                f"{self.kind} covariances of shape "
                f"{expected[self.kind]}, got {tuple(self.weights.shape)} and {tuple(self.covariances.shape)}."
            )

    @property
    def num_restarts(self) -> int:
        """R."""
        return self.means.shape[0]

    @property
    def num_components(self) -> int:
        """K."""
        return self.means.shape[1]

    @property
    def dim(self) -> int:
        """D."""
        return self.means.shape[2]

    def num_parameters(self) -> int:
        """The number of free parameters of one mixture: weights, means and covariances."""
        k, d = self.num_components, self.dim
        covariances = {"diagonal": k * d, "full": k * d * (d + 1) // 2, "tied": d * (d + 1) // 2}[self.kind]
        return k - 1 + k * d + covariances

    def effective_components(self) -> Tensor:  # (R,)
        """exp of the entropy of the weights: K for equal weights, 1 if one component has all the weight."""
        return torch.special.entr(self.weights).sum(dim=1).exp()

    def factors(self) -> Tensor:
        """Upper triangular A with A A^T the precision, which maps a difference from the mean to a standard normal;
        diagonal: its diagonal.

        Shaped as the covariances. Raises ValueError for a covariance that is not positive definite.
        """
        if self.kind == "diagonal":
            bad = int((~(self.covariances > 0)).any(dim=-1).sum())
            factors = self.covariances.rsqrt()
        else:
            lower, info = torch.linalg.cholesky_ex(self.covariances)
            bad = int((info != 0).sum())
            eye = torch.eye(self.dim, dtype=lower.dtype, device=lower.device).expand_as(lower)
            factors = torch.linalg.solve_triangular(lower, eye, upper=False).mT
        if bad:
            raise ValueError(
                f"{bad} of the {self.kind} covariances of {self.num_components} components are not positive definite. "
                "Raise `floor`, or fit fewer."
            )
        return factors

    def to(self, device: torch.device) -> "Mixture":
        """The mixtures on a device."""
        return Mixture(self.kind, self.weights.to(device), self.means.to(device), self.covariances.to(device))

    def select(
        self,
        restarts: Tensor,  # (S,) int64
    ) -> "Mixture":
        """Some of the mixtures."""
        return Mixture(self.kind, self.weights[restarts], self.means[restarts], self.covariances[restarts])
