"""CKA: how similar two representations of the same images are, up to rotation and scale.

[0] Kornblith et al., Similarity of Neural Network Representations Revisited, 2019, https://arxiv.org/abs/1905.00414
[1] Song et al., Feature Selection via Dependence Maximization, 2012, https://jmlr.org/papers/v13/song12a.html (unbiased
    HSIC)
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Alignment:
    """Linear CKA of two representations."""

    cka: float  # 1: equal up to rotation and scale; about 0, possibly negative: nothing in common


def linear_cka(
    a: Tensor,  # (n, D)
    b: Tensor,  # (n, E)
) -> Alignment:
    """Linear CKA [0] with the unbiased HSIC [1], in float64.

    The biased estimate goes to 1 for any representation with more features than images; this one does not.
    Raises ValueError for fewer than four images, for different numbers of them, and for a constant representation.
    """
    if len(a) != len(b) or len(a) < 4:
        raise ValueError(f"CKA compares two representations of at least four images each, got {len(a)} and {len(b)}.")
    first, second = gram(a), gram(b)
    own = hsic(first, first), hsic(second, second)
    if not min(own) > 0:
        raise ValueError("A representation is constant over the images: CKA is not defined for it.")
    return Alignment(cka=hsic(first, second) / (own[0] * own[1]) ** 0.5)


def gram(x: Tensor) -> Tensor:  # (n, ...) -> (n, n) float64
    """The Gram matrix of centered items with a zero diagonal."""
    flat = x.double().flatten(1)
    centered = flat - flat.mean(dim=0)
    varies = centered.norm() > 1e-12 * flat.norm()
    unit = centered / centered.norm() if varies else centered.new_zeros(centered.shape)
    return (unit @ unit.T).fill_diagonal_(0.0)


def hsic(a: Tensor, b: Tensor) -> float:
    """The unbiased estimate of the Hilbert-Schmidt independence criterion, eq. 5 of [1], of matrices with zero
    diagonals.
    """
    n = len(a)
    products = (a * b).sum() + a.sum() * b.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (a.sum(dim=0) @ b.sum(dim=0))
    return (products / (n * (n - 3))).item()
