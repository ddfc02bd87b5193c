"""Effective rank: the number of directions over which the variance of latents is spread.

[0] Roy and Vetterli, The Effective Rank: A Measure of Effective Dimensionality, 2007,
    https://www.eurasip.org/Proceedings/Eusipco/Eusipco2007/Papers/a5p-h05.pdf
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rank:
    """The effective rank, and its upper bound."""

    value: float
    largest: int  # min(items - 1, features)


def effective_rank(
    x: Tensor,  # (n, D)
) -> Rank:
    """exp of the entropy of the centered items' singular values over their sum [0], in float64; invariant to scale.

    Raises ValueError for fewer than two items, for equal items, and for items that are not finite.
    """
    if len(x) < 2 or not torch.isfinite(x).all():
        raise ValueError(f"An effective rank needs at least two finite items, got {len(x)}.")
    centered = x.double() - x.double().mean(dim=0)
    small = centered.T @ centered if x.shape[1] <= len(x) else centered @ centered.T
    if centered.norm() <= 1e-12 * x.double().norm():
        raise ValueError("Equal items have no effective rank.")
    squares = torch.linalg.eigvalsh(small)
    rounding = squares.max() * len(small) * torch.finfo(torch.float64).eps
    squares = torch.where(squares > rounding, squares, 0.0)
    values = squares.sqrt()
    share = values / values.sum()
    return Rank(value=torch.special.entr(share).sum().exp().item(), largest=min(len(x) - 1, x.shape[1]))
