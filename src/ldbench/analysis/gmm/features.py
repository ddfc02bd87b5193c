"""Features of a point in which every Gaussian's log-density is linear: 1, x, and the squares or products that its
covariance needs.

A matrix product then gives the log-densities of many points under many components, and another one, with the
responsibilities, the moments of the components.
"""

import torch
from torch import Tensor

from ldbench.analysis.gmm.mixture import Kind


def num_features(kind: Kind, dim: int) -> int:
    """The number of features of a point of `dim` dimensions.

    For tied covariances without the quadratic term that components share.
    """
    return 1 + dim + {"diagonal": dim, "full": dim * (dim + 1) // 2, "tied": 0}[kind]


def features(
    x: Tensor,  # (n, D)
    kind: Kind,
    *,
    out: Tensor,  # (F, >= n), of which the first n columns are filled
) -> Tensor:  # (F, n)
    """1, x, and x squared (diagonal) or x_i x_j for i <= j, row by row (full)."""
    n, dim = x.shape
    out = out[:, :n]
    across = out[1 : 1 + dim]
    out[0] = 1
    across.copy_(x.T)
    if kind == "diagonal":
        torch.mul(across, across, out=out[1 + dim :])
    elif kind == "full":
        row = 1 + dim
        for i in range(dim):
            torch.mul(across[i:], across[i], out=out[row : row + dim - i])
            row += dim - i
    return out


def coefficients(
    kind: Kind,
    linear: Tensor,  # (M, D)
    precision: Tensor,  # diagonal: (M, D); full: (M, D, D); tied: not used
    constant: Tensor,  # (M,)
) -> Tensor:  # (F, M)
    """The coefficients of `features` that give constant + linear . x - x^T precision x / 2."""
    parts = [constant[:, None], linear]
    if kind == "diagonal":
        parts.append(-precision / 2)
    elif kind == "full":
        halved = precision.clone()
        halved.diagonal(dim1=-2, dim2=-1).div_(2)
        i, j = torch.triu_indices(precision.shape[-1], precision.shape[-1], device=precision.device)
        parts.append(-halved[:, i, j])
    return torch.cat(parts, dim=1).T.contiguous()


def second_moments(
    kind: Kind,
    sums: Tensor,  # (M, F): sums of features
    dim: int,
) -> Tensor:  # diagonal: (M, D); full: (M, D, D)
    """Sums of x^2, or of x x^T, from sums of features."""
    tail = sums[:, 1 + dim :]
    if kind == "diagonal":
        return tail
    i, j = torch.triu_indices(dim, dim, device=sums.device)
    products = sums.new_empty(len(sums), dim, dim)
    products[:, i, j] = tail
    products[:, j, i] = tail
    return products
