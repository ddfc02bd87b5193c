"""Linear probe: how much of an image's class a linear reader finds in its latent.

[0] Alain and Bengio, Understanding Intermediate Layers Using Linear Classifier Probes, 2016, https://arxiv.org/abs/1610.01644
[1] Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927, https://doi.org/10.1080/01621459.1927.10502953
"""

import math
from dataclasses import dataclass

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor


@dataclass(frozen=True)
class Probed:
    """The share of held-out items whose class a linear reader names, with its 95 % interval, and the share that one constant answer reaches."""

    accuracy: float
    low: float
    high: float
    chance: float  # of the most frequent training class


def linear_probe(
    train: Tensor,  # (n, D)
    train_y: Tensor,  # (n,)
    test: Tensor,  # (m, D)
    test_y: Tensor,  # (m,)
    *,
    penalty: float,  # of squared weights: 1 / C of scikit-learn
    max_iter: int,
) -> Probed:
    """Logistic regression [0] on features of mean 0 and standard deviation 1 over the training part, in float64. It draws nothing.

    Raises ValueError for a training part of fewer than two classes, and for features that are not finite.
    """
    if len(train_y.unique()) < 2:
        raise ValueError(
            f"A probe needs training items of two classes or more, got {len(train_y)} items of {len(train_y.unique())}."
        )
    if not (torch.isfinite(train).all() and torch.isfinite(test).all()):
        raise ValueError(
            "Latents hold numbers that are not finite (NaN or infinity). Look at the tokenizer before measuring it."
        )
    train, test = train.double(), test.double()
    mean, std = train.mean(dim=0), train.std(dim=0, correction=0)
    std = torch.where(std > 0, std, 1.0)  # what never changes tells nothing
    reader = LogisticRegression(C=1 / penalty, max_iter=max_iter).fit(((train - mean) / std).numpy(), train_y.numpy())
    right = int((reader.predict(((test - mean) / std).numpy()) == test_y.numpy()).sum())
    low, high = wilson(right, len(test_y))
    return Probed(right / len(test_y), low, high, (test_y == train_y.mode().values).double().mean().item())


def wilson(hits: int, trials: int, *, z: float = 1.959963984540054) -> tuple[float, float]:
    """The ends of the score interval of a share [1]; `z` is the normal quantile, of 95 % unless given."""
    share = hits / trials
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return max(0.0, centre - half), min(1.0, centre + half)
