"""Field: a network's predictions at any point and time, as any of the quantities that a sampler asks for."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from ldbench.core.interpolant import Coefficients, Interpolant, Kind, conversion_coefficients, convert, expand_like

NO_INNER_HEAD = (
    "Internal guidance needs a network with a head after an inner block, and this one has none. Train one with "
    "+generator.backbone.inner_block=N. Choose guidance=none or cfg for this one."
)


@dataclass(frozen=True)
class Prediction:
    """The output of one call of a network at x and t, as the velocity, score, noise or data that it is equivalent to.

    A view is not finite at times where the prediction does not determine it: `Field.interval` holds the times where the
    velocity is finite.
    """

    value: Tensor  # (B, N, C) of `kind`
    kind: Kind
    x: Tensor  # (B, N, C)
    t: Tensor  # (B,)
    interpolant: Interpolant
    # (B, N, C) or (B, 1, 1): a reverse step's variance, from the posterior's (0) to beta (1),
    # `DiscreteDiffusion.logvar`
    variance_fraction: Tensor | None = None
    # the factor from the value to the velocity is at most this: beyond it the velocity is shorter, in proportion
    max_velocity_factor: float | None = None

    @cached_property
    def coefficients(self) -> Coefficients:
        """The interpolant's coefficients at t: (B,) float64 on the CPU."""
        return self.interpolant.at(self.t)

    @property
    def velocity(self) -> Tensor:
        """dx/dt towards the data, (B, N, C)."""
        velocity = self.view("velocity")
        if self.max_velocity_factor is None or self.kind == "velocity":
            return velocity
        factor = conversion_coefficients(self.coefficients, self.kind, "velocity")[1].abs()  # (B,)
        return expand_like((self.max_velocity_factor / factor).clamp(max=1), velocity) * velocity

    @property
    def score(self) -> Tensor:
        """The gradient of the log density of x at t, (B, N, C)."""
        return self.view("score")

    @property
    def noise(self) -> Tensor:
        """The expected noise in x, (B, N, C)."""
        return self.view("noise")

    @property
    def data(self) -> Tensor:
        """The expected data in x, (B, N, C)."""
        return self.view("data")

    def view(self, kind: Kind) -> Tensor:  # (B, N, C)
        """The prediction converted to this kind."""
        return convert(self.value, self.x, self.coefficients, source=self.kind, target=kind)

    def with_value(self, value: Tensor) -> "Prediction":
        """The same prediction with another value of its kind."""
        return replace(self, value=value)


class Field:
    """Predictions at every point and time, with a count of the network calls that they took and of the items in them.

    `predict`: (x (B, N, C), t (B,) with 0 noise and 1 data, y (B,)) -> Prediction of the kind `prediction`.
    `null_class`: the label for "no label", or None where the network was not trained without labels.
    `average`: (x, t, r (B,), y) -> the average velocity (B, N, C) from t to a later time r; None where the network does
    not learn it.
    A field composed of others (guidance) holds them as `parts` and sums their counts. `network`: what `to` moves, where
    it is a module.
    """

    def __init__(
        self,
        predict: Callable[[Tensor, Tensor, Tensor], Prediction],
        *,
        interpolant: Interpolant,
        prediction: Kind,
        null_class: int | None,
        parts: tuple["Field", ...] = (),
        network: object = None,
        average: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] | None = None,
    ):
        self.predict = predict
        self.interpolant = interpolant
        self.prediction = prediction
        self.null_class = null_class
        self.parts = parts
        self.network = network
        self.average = average
        # (x, t, y) -> the network's prediction and that of its inner head; None where it has none
        self.with_inner: Callable[[Tensor, Tensor, Tensor], tuple[Prediction, Prediction]] | None = None
        self.own_calls = 0
        self.own_items = 0

    def __call__(
        self,
        x: Tensor,  # (B, N, C)
        t: Tensor,  # (B,), 0 noise, 1 data
        y: Tensor,  # (B,)
    ) -> Prediction:
        """The prediction at x, from one call of each network that it needs."""
        if not self.parts:
            self.own_calls += 1
            self.own_items += len(x)
        return self.predict(x, t, y)

    def predict_with_inner(
        self,
        x: Tensor,  # (B, N, C)
        t: Tensor,  # (B,)
        y: Tensor,  # (B,)
    ) -> tuple[Prediction, Prediction]:
        """The prediction and that of the network's inner head, by one call. Raises ValueError where there is none."""
        if self.with_inner is None:
            raise ValueError(NO_INNER_HEAD)
        self.own_calls += 1
        self.own_items += len(x)
        return self.with_inner(x, t, y)

    def average_velocity(
        self,
        x: Tensor,  # (B, N, C)
        t: Tensor,  # (B,)
        r: Tensor,  # (B,), at least t
        y: Tensor,  # (B,)
    ) -> Tensor:  # (B, N, C)
        """The average velocity from x at t to the later time r. Raises ValueError where it is not learned."""
        if self.average is None:
            raise ValueError(
                "One-step sampling needs a network that learns average velocities, and this field has none. Choose "
                "sampler=euler or heun; or train with objective=mean_flow and sample with guidance=none."
            )
        self.own_calls += 1
        self.own_items += len(x)
        return self.average(x, t, r, y)

    def to(self, device: torch.device) -> "Field":
        """Moves the field's networks to a device, in place, and returns the field."""
        for part in self.parts:
            part.to(device)
        if isinstance(self.network, nn.Module) and any(
            parameter.device != device for parameter in self.network.parameters()
        ):
            self.network.to(device)
        return self

    @property
    def calls(self) -> int:
        """The number of network calls so far."""
        return self.own_calls + sum(part.calls for part in self.parts)

    @property
    def items(self) -> int:
        """The number of items in all calls so far."""
        return self.own_items + sum(part.items for part in self.parts)

    def interval(self, margin: float) -> tuple[float, float]:
        """The first and the last time at which it, and every field that it is composed of, can be integrated."""
        own = self.interpolant.interval(self.prediction, margin)
        first, last = zip(own, *(part.interval(margin) for part in self.parts), strict=True)
        return max(first), min(last)
