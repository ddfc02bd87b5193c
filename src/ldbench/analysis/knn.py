"""Nearest neighbours: how much of an image's class stands in the latents around it. Nothing is trained.

[0] Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, 2018, https://arxiv.org/abs/1805.01978
"""

from dataclasses import dataclass

from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor


@dataclass(frozen=True)
class Neighbours:
    """Which held-out items their neighbours name rightly."""

    right: Tensor  # (m,) bool


def neighbours(
    train: Tensor,  # (n, D)
    train_y: Tensor,  # (n,)
    test: Tensor,  # (m, D)
    test_y: Tensor,  # (m,)
    *,
    k: int,
) -> Neighbours:
    """The vote of the `k` nearest training items by Euclidean distance, each weighing 1 / distance, in float64. It draws nothing.

    [0] weighs by the exponential of a cosine, whose temperature no two papers share.
    Raises ValueError for fewer training items than `k`, and for features that are not finite.
    """
    if not 1 <= k <= len(train):
        raise ValueError(
            f"{k} neighbours cannot vote where there are {len(train)} training items. Choose k from 1 to {len(train)}."
        )
    if not (train.isfinite().all() and test.isfinite().all()):
        raise ValueError(
            "Latents hold numbers that are not finite (NaN or infinity). Look at the tokenizer before measuring it."
        )
    vote = KNeighborsClassifier(n_neighbors=k, weights="distance", algorithm="brute").fit(
        train.double().numpy(), train_y.numpy()
    )
    return Neighbours(right=test_y == test_y.new_tensor(vote.predict(test.double().numpy())))
