"""Nearest neighbors: how well the nearest latents predict an image's class. Nothing is trained.

[0] Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, 2018,
    https://arxiv.org/abs/1805.01978
"""

from dataclasses import dataclass

from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor


@dataclass(frozen=True)
class NearestNeighbors:
    """Which held-out items their neighbors classify correctly."""

    correct: Tensor  # (m,) bool


def nearest_neighbors(
    train: Tensor,  # (n, D)
    train_y: Tensor,  # (n,)
    test: Tensor,  # (m, D)
    test_y: Tensor,  # (m,)
    *,
    k: int,
) -> NearestNeighbors:
    """The vote of the `k` nearest training items by Euclidean distance, weighted by 1 / distance, in float64.

    Deterministic.

    [0] weights by the exponential of a cosine, with a temperature on which papers differ.
    Raises ValueError for fewer training items than `k`, and for features that are not finite.
    """
    if not 1 <= k <= len(train):
        raise ValueError(
            f"{k} neighbors cannot vote with {len(train)} training items. Choose k from 1 to {len(train)}."
        )
    if not (train.isfinite().all() and test.isfinite().all()):
        raise ValueError("The latents contain NaN or infinity. Check the tokenizer before measuring it.")
    vote = KNeighborsClassifier(n_neighbors=k, weights="distance", algorithm="brute").fit(
        train.double().numpy(), train_y.numpy()
    )
    return NearestNeighbors(correct=test_y == test_y.new_tensor(vote.predict(test.double().numpy())))
