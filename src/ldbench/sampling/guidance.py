"""Guidance: fields that follow the labels more closely than the learned field.

[0] Ho and Salimans, Classifier-Free Diffusion Guidance, 2022, https://arxiv.org/abs/2207.12598
[1] Kynkaanniemi et al., Applying Guidance in a Limited Interval, 2024, https://arxiv.org/abs/2404.07724
[2] Karras et al., Guiding a Diffusion Model with a Bad Version of Itself, 2024, https://arxiv.org/abs/2406.02507
[3] Peebles and Xie, DiT, 2023, https://arxiv.org/abs/2212.09748 (the first three channels)
[4] RAEv2, 2026, https://arxiv.org/abs/2605.18324 (scale 1.78 for times up to 0.9)
"""

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from ldbench.core.field import NO_INNER_HEAD, Field, Prediction
from ldbench.core.interpolant import Interpolant

ROUNDING = 1e-9  # tolerance at the ends of an interval


class Unguided:
    """No guidance: the learned field."""

    revision: ClassVar[int] = 1

    def __call__(self, field: Field) -> Field:
        """The same field."""
        return field


class ClassifierFree:
    """unconditional + scale * (conditional - unconditional) [0] for low <= t <= high [1], else the conditional field.

    0 is noise, 1 is data. `channels`: how many of the first channels are guided, while the others stay conditional (3:
    the official form of DiT and LightningDiT [3]); None: all. A learned variance stays conditional. The unconditional
    branch is evaluated only for items inside the interval, and never at scale 1; `batched` evaluates both branches in
    one call of twice the items, else in two calls.
    Raises ValueError for numbers out of range, and for a field without a null class.
    """

    revision: ClassVar[int] = 1

    def __init__(self, *, scale: float, low: float, high: float, channels: int | None, batched: bool):
        validate_interval(low, high)
        if channels is not None and channels < 1:
            raise ValueError(
                f"Guidance needs at least one channel, got {channels}. "
                "Choose channels=null to guide all, or guidance=none."
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
                "Classifier-free guidance needs a network that was also trained without labels, but this one has no "
                "null class. Choose guidance=none or autoguidance, or train it with class_dropout."
            )
        if self.scale == 1:
            return field

        def predict(x: Tensor, t: Tensor, y: Tensor) -> Prediction:
            rows = indices_inside(t, self.low, self.high)
            if not len(rows):
                return field(x, t, y)
            unlabeled = (x[rows], t[rows], torch.full_like(y[rows], null_class))
            if self.batched:
                conditional, unconditional = predict_both(field, (x, t, y), unlabeled)
            else:
                conditional, unconditional = field(x, t, y), field(*unlabeled).value
            value = conditional.value.clone()
            value[rows] = extrapolate(unconditional, value[rows], self.scale, self.channels)
            return conditional.with_value(value)

        return Field(
            predict, interpolant=field.interpolant, prediction=field.prediction, null_class=null_class, parts=(field,)
        )


class Autoguidance:
    """guide + scale * (field - guide) for low <= t <= high, else the field; the guide is a weaker network's field [2].

    The guide sees the same labels, is called only for items inside the interval, and may predict another kind: then
    samples begin and end where both predictions determine a velocity. Raises ValueError for a guide with another
    interpolant.
    """

    revision: ClassVar[int] = 2

    def __init__(self, *, scale: float, low: float, high: float, guide: Field):
        validate_interval(low, high)
        self.scale = scale
        self.low = low
        self.high = high
        self.guide = guide

    def __call__(self, field: Field) -> Field:
        """The guided field. Raises ValueError for a field with another interpolant than the guide's."""
        if not same_path(field.interpolant, self.guide.interpolant):
            ours, theirs = (type(each.interpolant).__name__ for each in (field, self.guide))
            settings = " with other settings" if ours == theirs else ""
            raise ValueError(
                f"A guide must use the field's interpolant, {ours}, but it uses {theirs}{settings}. "
                "Choose a guide with the same objective."
            )

        def predict(x: Tensor, t: Tensor, y: Tensor) -> Prediction:
            predicted = field(x, t, y)
            rows = indices_inside(t, self.low, self.high)
            if not len(rows):
                return predicted
            value = predicted.value.clone()
            guide = self.guide.to(x.device)(x[rows], t[rows], y[rows])
            weak = guide.velocity if field.prediction == "velocity" else guide.view(field.prediction)
            value[rows] = extrapolate(weak, value[rows], self.scale, None)
            return predicted.with_value(value)

        parts = (field, self.guide)
        return Field(
            predict,
            interpolant=field.interpolant,
            prediction=field.prediction,
            null_class=field.null_class,
            parts=parts,
        )


class InternalGuidance:
    """inner + scale * (field - inner) for low <= t <= high, else the field; inner is the prediction of a head after an
    inner block of the same network, which costs no further call [4].

    Raises ValueError for numbers out of range.
    """

    revision: ClassVar[int] = 1

    def __init__(self, *, scale: float, low: float, high: float):
        validate_interval(low, high)
        self.scale = scale
        self.low = low
        self.high = high

    def __call__(self, field: Field) -> Field:
        """The guided field. Raises ValueError for a network without an inner head."""
        if field.with_inner is None:
            raise ValueError(NO_INNER_HEAD)
        if self.scale == 1:
            return field

        def predict(x: Tensor, t: Tensor, y: Tensor) -> Prediction:
            rows = indices_inside(t, self.low, self.high)
            if not len(rows):
                return field(x, t, y)
            whole, inner = field.predict_with_inner(x, t, y)
            value = whole.value.clone()
            value[rows] = extrapolate(inner.value[rows], value[rows], self.scale, None)
            return whole.with_value(value)

        return Field(
            predict,
            interpolant=field.interpolant,
            prediction=field.prediction,
            null_class=field.null_class,
            parts=(field,),
        )


def same_path(first: Interpolant, second: Interpolant) -> bool:
    """Whether two interpolants have the same coefficients."""
    if type(first) is not type(second):
        return False
    t = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
    ours, theirs = first.coefficients(t), second.coefficients(t)
    return torch.allclose(ours.alpha, theirs.alpha) and torch.allclose(ours.sigma, theirs.sigma)


def predict_both(
    field: Field,
    first: tuple[Tensor, Tensor, Tensor],  # x (B, N, C), t (B,), y (B,)
    second: tuple[Tensor, Tensor, Tensor],
) -> tuple[Prediction, Tensor]:
    """The prediction at the first inputs and the value at the second, from one call."""
    x, t, _ = first
    both = field(*(torch.cat(pair) for pair in zip(first, second, strict=True)))
    share = None if both.variance_fraction is None else both.variance_fraction[: len(x)]
    return replace(both, value=both.value[: len(x)], x=x, t=t, variance_fraction=share), both.value[len(x) :]


def extrapolate(
    weak: Tensor,  # (B, N, C)
    strong: Tensor,  # (B, N, C)
    scale: float,
    channels: int | None,
) -> Tensor:  # (B, N, C)
    """weak + scale * (strong - weak) in the first channels, strong in the others.

    Equivalent for all kinds of predictions, because they are affine in each other.
    """
    guided = weak + scale * (strong - weak)
    return guided if channels is None else torch.cat([guided[..., :channels], strong[..., channels:]], dim=-1)


def indices_inside(t: Tensor, low: float, high: float) -> Tensor:  # int64 on the CPU
    """The indices of the items whose time lies in the interval, including its ends."""
    t = t.cpu()
    return ((t >= low - ROUNDING) & (t <= high + ROUNDING)).nonzero().squeeze(1)


def validate_interval(low: float, high: float) -> None:
    """Raises ValueError unless 0 <= low <= high <= 1."""
    if not 0 <= low <= high <= 1:
        raise ValueError(f"Guidance needs 0 <= low <= high <= 1 (0 noise, 1 data), got {low} and {high}.")
