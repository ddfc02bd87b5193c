"""The labels of samples by a protocol's rule."""

from collections.abc import Sequence

import torch
from torch import Tensor


def sample_labels(
    labels: str | Sequence[int], num_samples: int, *, num_classes: int, seed: int
) -> Tensor:  # (num_samples,)
    """The label of each sample: all classes in turn (balanced), uniformly random (random), or the listed ones in
    turn.
    """
    if labels == "random":
        return torch.randint(num_classes, (num_samples,), generator=torch.Generator().manual_seed(seed))
    classes = range(num_classes) if isinstance(labels, str) else labels
    return torch.tensor([classes[index % len(classes)] for index in range(num_samples)])
