"""Guidance: a field that keeps closer to the labels than the one that was learned.

[0] Ho and Salimans, Classifier-Free Diffusion Guidance, 2022, https://arxiv.org/abs/2207.12598
[1] Kynkaanniemi et al., Applying Guidance in a Limited Interval, 2024, https://arxiv.org/abs/2404.07724
[2] Karras et al., Guiding a Diffusion Model with a Bad Version of Itself, 2024, https://arxiv.org/abs/2406.02507
[3] Peebles and Xie, DiT, 2023, https://arxiv.org/abs/2212.09748 (the first three channels)
"""

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from ldbench.core.field import Field, Prediction

ROUNDING = 1e-9  # of the ends of an interval


class Unguided:
    """The field as it was learned."""

    revision: ClassVar[int] = 1

    def __call__(self, field: Field) -> Field:
        """The same field."""
        return field


class ClassifierFree:
    """unconditional + scale * (conditional - unconditional) [0], where low <= t <= high (0 noise, 1 data) [1], and the conditional elsewhere.

    `channels`: how many of the first channels are guided, the others staying conditional (3: the official form of DiT and LightningDiT [3]);
    None: all. A learned variance stays conditional. The unconditional branch is evaluated only for items inside the interval, and never at
    scale 1; `batched` evaluates both branches in one call of twice the items, else in two calls.
    Raises ValueError for numbers out of range, and for a field without a null class.
    """

    revision: ClassVar[int] = 1

    def __init__(self, *, scale: float, low: float, high: float, channels: int | None, batched: bool):
        check_interval(low, high)
        if channels is not None and channels < 1:
            raise ValueError(
                f"Guidance needs at least one channel, got {channels}. channels=null guides all, guidance=none none."
            )
        self.scale = scale
        self.low = low
        self.high = high
        self.channels = channels
        self.batched = batched

    def __call__(self, field: Field) -> Field:
        """The guided field. Raises ValueError for a field without a null class."""
        null_class = field.null_class
        if null_class is None:
            raise ValueError(
                "Classifier-free guidance needs a network that has also learned without labels, but this one has no null class. "
                "Choose guidance=none or autoguidance, or train it with dropped labels."
            )
        if self.scale == 1:
            return field

        def predict(x: Tensor, t: Tensor, y: Tensor) -> Prediction:
            rows = rows_inside(t, self.low, self.high)
            if not len(rows):
                return field(x, t, y)
            free = (x[rows], t[rows], torch.full_like(y[rows], null_class))
            conditional, unconditional = (
                together(field, (x, t, y), free) if self.batched else (field(x, t, y), field(*free).value)
            )
            value = conditional.value.clone()
            value[rows] = away(unconditional, value[rows], self.scale, self.channels)
            return conditional.with_value(value)

        return Field(
            predict, interpolant=field.interpolant, prediction=field.prediction, null_class=null_class, parts=(field,)
        )


class Autoguidance:
    """guide + scale * (field - guide), with a weaker network's field as the guide [2], where low <= t <= high, and the field elsewhere.

    The guide sees the same labels, and is called only for items inside the interval. Raises ValueError for a guide on another interpolant.
    """

    revision: ClassVar[int] = 1

    def __init__(self, *, scale: float, low: float, high: float, guide: Field):
        check_interval(low, high)
        self.scale = scale
        self.low = low
        self.high = high
        self.guide = guide

    def __call__(self, field: Field) -> Field:
        """The guided field. Raises ValueError for one on another interpolant than the guide's."""
        ours, theirs = (type(each.interpolant).__name__ for each in (field, self.guide))
        if ours != theirs:
            raise ValueError(
                f"A guide must live on the field's interpolant, {ours}, but it lives on {theirs}. Choose a guide of the same objective."
            )

        def predict(x: Tensor, t: Tensor, y: Tensor) -> Prediction:
            predicted = field(x, t, y)
            rows = rows_inside(t, self.low, self.high)
            if not len(rows):
                return predicted
            value = predicted.value.clone()
            value[rows] = away(
                self.guide.to(x.device)(x[rows], t[rows], y[rows]).view(field.prediction), value[rows], self.scale, None
            )
            return predicted.with_value(value)

        parts = (field, self.guide)
        return Field(
            predict,
            interpolant=field.interpolant,
            prediction=field.prediction,
            null_class=field.null_class,
            parts=parts,
        )


def together(
    field: Field,
    first: tuple[Tensor, Tensor, Tensor],  # x (B, N, C), t (B,), y (B,)
    second: tuple[Tensor, Tensor, Tensor],
) -> tuple[Prediction, Tensor]:
    """The prediction at the first, and the value at the second, from one call."""
    x, t, _ = first
    both = field(*(torch.cat(pair) for pair in zip(first, second, strict=True)))
    share = None if both.variance_fraction is None else both.variance_fraction[: len(x)]
    return replace(both, value=both.value[: len(x)], x=x, t=t, variance_fraction=share), both.value[len(x) :]


def away(
    weak: Tensor,  # (B, N, C)
    strong: Tensor,  # (B, N, C)
    scale: float,
    channels: int | None,
) -> Tensor:  # (B, N, C)
    """weak + scale * (strong - weak) in the first channels, strong in the others; the same in whichever words, for all are affine in each other."""
    guided = weak + scale * (strong - weak)
    return guided if channels is None else torch.cat([guided[..., :channels], strong[..., channels:]], dim=-1)


def rows_inside(t: Tensor, low: float, high: float) -> Tensor:  # int64 of the CPU
    """The numbers of the items whose time lies in the interval, its ends included."""
    t = t.cpu()
    return ((t >= low - ROUNDING) & (t <= high + ROUNDING)).nonzero().squeeze(1)


def check_interval(low: float, high: float) -> None:
    """Raises ValueError unless 0 <= low <= high <= 1."""
    if not 0 <= low <= high <= 1:
        raise ValueError(f"Guidance needs 0 <= low <= high <= 1 (0 noise, 1 data), got {low} and {high}.")
