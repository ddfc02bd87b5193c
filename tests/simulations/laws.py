"""Laws that sets of features are drawn from: classes that lie apart, as those of digits do."""

import torch
from torch import Tensor

from ldbench.metrics.feature_set import Features, FeatureSet, gather

CLASSES, WIDTH = 10, 8


def labels_of(kind: str, count: int, rng: torch.Generator) -> Tensor:
    """Balanced labels, or random ones."""
    if kind == "balanced":
        return torch.arange(count) % CLASSES
    return torch.randint(CLASSES, (count,), generator=rng)


def draw(labels: Tensor, rng: torch.Generator, *, shift: float = 0.0) -> Tensor:  # (n, WIDTH)
    """Features of images with these labels; `shift` in all directions makes another law."""
    means = 2 * torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(7))
    return means[labels] + torch.randn(len(labels), WIDTH, generator=rng) + shift


def set_of(features: Tensor, labels: Tensor, *, chosen: bool) -> FeatureSet:
    """A set with the parts that intervals leave out; `chosen`: labels are balanced, and not drawn."""
    return gather(
        Features(features), {"normal", "features", "labels"}, labels=labels, strata=labels if chosen else None
    )
