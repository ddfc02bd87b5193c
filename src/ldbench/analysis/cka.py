"""CKA: how alike two views of the same images arrange them, whatever axes and units the views have.

[0] Kornblith et al., Similarity of Neural Network Representations Revisited, 2019, https://arxiv.org/abs/1905.00414
[1] Song et al., Feature Selection via Dependence Maximization, 2012, https://jmlr.org/papers/v13/song12a.html (unbiased HSIC)
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Alignment:
    """Linear CKA of two views."""

    cka: float  # 1: the same up to rotation and scale; about 0, and below it by chance: nothing in common


def linear_cka(
    a: Tensor,  # (n, D)
    b: Tensor,  # (n, E)
) -> Alignment:
    """Linear CKA [0] with the unbiased HSIC [1], in float64.

    The plain one goes to 1 where a view has more features than images, whatever they are; this one does not.
    Raises ValueError for fewer than four images, for another number of them, and for a view that does not change over them.
    """
    if len(a) != len(b) or len(a) < 4:
        raise ValueError(f"CKA compares two views of the same images, four or more, got {len(a)} and {len(b)}.")
    first, second = gram(a), gram(b)
    own = hsic(first, first), hsic(second, second)
    if not min(own) > 0:
        raise ValueError("A view that does not change over the images is like nothing: CKA is not defined for it.")
    return Alignment(cka=hsic(first, second) / (own[0] * own[1]) ** 0.5)


def gram(x: Tensor) -> Tensor:  # (n, ...) -> (n, n) float64
    """Products of centred items, without those of an item with itself."""
    flat = x.double().flatten(1)
    centred = flat - flat.mean(dim=0)
    changes = centred.norm() > 1e-12 * flat.norm()
    unit = centred / centred.norm() if changes else centred.new_zeros(centred.shape)
    return (unit @ unit.T).fill_diagonal_(0.0)


def hsic(a: Tensor, b: Tensor) -> float:
    """The unbiased estimate of the Hilbert-Schmidt independence criterion, eq. 5 of [1], of matrices with zero diagonals."""
    n = len(a)
    products = (a * b).sum() + a.sum() * b.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (a.sum(dim=0) @ b.sum(dim=0))
    return (products / (n * (n - 3))).item()
