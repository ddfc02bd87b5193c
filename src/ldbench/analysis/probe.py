"""Linear probe: how well a linear classifier reads an image's class from its latent.

[0] Alain and Bengio, Understanding Intermediate Layers Using Linear Classifier Probes, 2016,
    https://arxiv.org/abs/1610.01644
"""

from dataclasses import dataclass

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor


@dataclass(frozen=True)
class LinearProbe:
    """Which held-out items a linear classifier gets right, and the accuracy of one constant answer."""

    correct: Tensor  # (m,) bool
    chance: float  # accuracy of always answering the most frequent training class


def linear_probe(
    train: Tensor,  # (n, D)
    train_y: Tensor,  # (n,)
    test: Tensor,  # (m, D)
    test_y: Tensor,  # (m,)
    *,
    penalty: float,  # of squared weights: 1 / C of scikit-learn
    max_iter: int,
) -> LinearProbe:
    """Logistic regression [0] on features of mean 0 and standard deviation 1 over the training split, in float64.

    Deterministic.

    Raises ValueError for a training split of fewer than two classes, and for features that are not finite.
    """
    if len(train_y.unique()) < 2:
        raise ValueError(
            f"A probe needs training items of at least two classes, got {len(train_y)} items of "
            f"{len(train_y.unique())}."
        )
    if not (torch.isfinite(train).all() and torch.isfinite(test).all()):
        raise ValueError("The latents contain NaN or infinity. Check the tokenizer before measuring it.")
    train, test = train.double(), test.double()
    mean, std = train.mean(dim=0), train.std(dim=0, correction=0)
    std = torch.where(std > 0, std, 1.0)  # constant features carry no information
    classifier = LogisticRegression(C=1 / penalty, max_iter=max_iter).fit(
        ((train - mean) / std).numpy(), train_y.numpy()
    )
    predicted = test_y.new_tensor(classifier.predict(((test - mean) / std).numpy()))
    chance = (test_y == train_y.mode().values).double().mean().item()
    return LinearProbe(correct=predicted == test_y, chance=chance)
