"""Effective rank: over how many directions the variance of latents is spread.

[0] Roy and Vetterli, The Effective Rank: A Measure of Effective Dimensionality, 2007, https://www.eurasip.org/Proceedings/Eusipco/Eusipco2007/Papers/a5p-h05.pdf
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rank:
    """The effective rank, beside the largest that it could have been."""

    value: float
    largest: int  # min(items - 1, features)


def effective_rank(
    x: Tensor,  # (n, D)
) -> Rank:
    """exp of the entropy of the centred items' singular values over their sum [0], in float64; of whatever scale.

    Raises ValueError for fewer than two items, for items that are all equal, and for items that are not finite.
    """
    if len(x) < 2 or not torch.isfinite(x).all():
        raise ValueError(f"An effective rank needs two finite items or more, got {len(x)}.")
    centred = x.double() - x.double().mean(dim=0)
    small = centred.T @ centred if x.shape[1] <= len(x) else centred @ centred.T
    if centred.norm() <= 1e-12 * x.double().norm():
        raise ValueError("Items that are all equal have no rank.")
    squares = torch.linalg.eigvalsh(small)
    squares = torch.where(
        squares > squares.max() * len(small) * torch.finfo(torch.float64).eps, squares, 0.0
    )  # what is left of zeros
    values = squares.sqrt()
    share = values / values.sum()
    return Rank(value=torch.special.entr(share).sum().exp().item(), largest=min(len(x) - 1, x.shape[1]))
