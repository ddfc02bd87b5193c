"""Memorization: whether samples lie closer to the training images than other images of their law do.

The idea of three samples is [0]'s: generated, training and held-out images. [0] compares distances to the training
images; nearest neighbors among equal numbers of training and held-out images compare the same, and need no
correction for the number of images.

[0] Meehan, Chaudhuri and Dasgupta, A Non-Parametric Test to Detect Data-Copying in Generative Models, 2020,
    https://arxiv.org/abs/2004.05675
"""

import math
from typing import ClassVar

import torch
from torch import Tensor

from ldbench.core.estimate import Estimate
from ldbench.core.intervals import NORMAL_QUANTILE
from ldbench.metrics.feature_set import FeatureSet

BLOCK = 1024  # rows of the distance matrix in memory


class Memorization:
    """How much more often the nearest real image of a sample is a training image, than it is for real images.

    The training images are divided at random into groups as large as the held-out set. For each group, the share of
    samples that are closer to an image of the group than to any held-out image; from it the same share of the images
    of the next group, which the group does not contain, is subtracted. Where held-out images differ from training
    images, as those of other writers do, both shares differ from one half alike. 0: samples are as training images that
    were not seen; a generator that repeats its training images gets (1 - share) / groups. The interval is over samples
    and over images, for these groups.
    """

    revision: ClassVar[int] = 1
    requires: ClassVar[frozenset[str]] = frozenset({"features"})
    is_distance: ClassVar[bool] = False
    compares: ClassVar[str] = "splits"
    of_all_training_images: ClassVar[bool] = True  # a copy is close to one of them
    higher_is_better: ClassVar[bool | None] = None

    def __call__(self, samples: FeatureSet, reference: FeatureSet, *, heldout: FeatureSet) -> Estimate:
        """The difference of the two shares; `reference` are the training images. Raises ValueError for fewer than four
        training or two held-out images.
        """
        x, train, test = (found.get("features").double() for found in (samples, reference, heldout))
        if len(train) < 4 or len(test) < 2:
            raise ValueError(
                f"Memorization compares groups of at least two images, got {len(train)} training and {len(test)} "
                "held-out images. Leave memorization out of protocol.distribution."
            )
        rng = torch.Generator().manual_seed(0)
        size = min(len(test), len(train) // 2)
        train, test = train[torch.randperm(len(train), generator=rng)], test[torch.randperm(len(test), generator=rng)]
        groups, test = train[: len(train) // size * size].split(size), test[:size]
        closer = torch.stack([is_closer(x, group, test) for group in groups])  # (groups, n)
        real = torch.stack([is_closer(groups[i - 1], group, test) for i, group in enumerate(groups)])
        of_samples, of_real = closer.double().mean(dim=0), real.double().flatten()
        value = (of_samples.mean() - of_real.mean()).item()
        error = math.sqrt(of_samples.var().item() / len(of_samples) + of_real.var().item() / len(of_real))
        return Estimate(value, value - NORMAL_QUANTILE * error, value + NORMAL_QUANTILE * error, error)


def is_closer(x: Tensor, group: Tensor, others: Tensor) -> Tensor:  # (n, D), (k, D), (m, D) -> (n,) bool
    """Whether each point is closer to a group than to the others."""
    return torch.cat(
        [torch.cdist(rows, group).amin(dim=1) < torch.cdist(rows, others).amin(dim=1) for rows in x.split(BLOCK)]
    )
