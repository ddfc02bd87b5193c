"""A network together with its inner head, as one network whose inputs stand twice in a batch."""

from dataclasses import replace

import torch
from torch import Tensor

from ldbench.core.backbone import Backbone
from ldbench.core.field import Field, Prediction


class Stacked:
    """The outputs of a backbone for the first half of a batch, and those of its inner head for the second, by one pass.

    Both halves hold the same inputs, so that objectives, which know nothing of inner heads, train and read both.
    """

    def __init__(self, backbone: Backbone):
        self.backbone = backbone
        self.null_class = backbone.null_class
        self.learned_variance = backbone.learned_variance

    def __call__(self, x: Tensor, t: Tensor, y: Tensor, *, r: Tensor | None = None) -> Tensor:
        """Both outputs, (2B, N, C) for inputs (2B, ...)."""
        half = len(x) // 2
        return torch.cat(self.backbone.forward_with_inner(x[:half], t[:half], y[:half]))


def twice(x: Tensor) -> Tensor:
    """A batch that stands twice."""
    return torch.cat([x, x])


def predict_both(
    stacked: Field,  # of a `Stacked`
    x: Tensor,  # (B, N, C)
    t: Tensor,  # (B,)
    y: Tensor,  # (B,)
) -> tuple[Prediction, Prediction]:
    """The predictions of the network and of its inner head."""
    both = stacked.predict(twice(x), twice(t), twice(y))
    shares = (None, None) if both.variance_fraction is None else both.variance_fraction.chunk(2)
    first, second = (
        replace(both, value=value, x=x, t=t, variance_fraction=share)
        for value, share in zip(both.value.chunk(2), shares, strict=True)
    )
    return first, second
