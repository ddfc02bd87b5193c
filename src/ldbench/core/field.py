"""Field: what a network says at a place and a time, in whichever words a sampler asks."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from ldbench.core.interpolant import Coefficients, Interpolant, Kind, convert


@dataclass(frozen=True)
class Prediction:
    """What ONE call of a network said of x at t, as the velocity, score, noise or data that it is equal to.

    A view is not finite at times where what was predicted does not tell it: `Field.interval` holds the times where the velocity is.
    """

    value: Tensor  # (B, N, C) of `kind`
    kind: Kind
    x: Tensor  # (B, N, C)
    t: Tensor  # (B,)
    interpolant: Interpolant
    variance_fraction: Tensor | None = (
        None  # (B, N, C) or (B, 1, 1): of a step back, from the posterior's (0) to beta (1), see `DiscreteDiffusion.logvar`
    )

    @cached_property
    def coefficients(self) -> Coefficients:
        """Those of the interpolant at t: (B,) float64 of the CPU."""
        return self.interpolant.at(self.t)

    @property
    def velocity(self) -> Tensor:
        """dx/dt towards the data, (B, N, C)."""
        return self.view("velocity")

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
        """The expected data behind x, (B, N, C)."""
        return self.view("data")

    def view(self, kind: Kind) -> Tensor:  # (B, N, C)
        """The prediction as one of this kind."""
        return convert(self.value, self.x, self.coefficients, source=self.kind, target=kind)

    def with_value(self, value: Tensor) -> "Prediction":
        """The same prediction with another value of its kind."""
        return replace(self, value=value)


class Field:
    """Predictions at every place and time, with a count of the network calls that they took and of the items in these.

    `predict`: (x (B, N, C), t (B,) in the house's time, y (B,)) -> Prediction of the kind `prediction`.
    `null_class`: the label that stands for none, or None where the network has not learned without labels.
    A field made of others (guidance) names them as `parts` and counts their calls. `network`: what `to` moves, where it is a module.
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
    ):
        self.predict = predict
        self.interpolant = interpolant
        self.prediction = prediction
        self.null_class = null_class
        self.parts = parts
        self.network = network
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

    def to(self, device: torch.device) -> "Field":
        """The same field, its networks on a device."""
        for part in self.parts:
            part.to(device)
        if isinstance(self.network, nn.Module) and any(
            parameter.device != device for parameter in self.network.parameters()
        ):
            self.network.to(device)
        return self

    @property
    def calls(self) -> int:
        """How often networks were called so far."""
        return self.own_calls + sum(part.calls for part in self.parts)

    @property
    def items(self) -> int:
        """How many images these calls held together."""
        return self.own_items + sum(part.items for part in self.parts)

    def interval(self, margin: float) -> tuple[float, float]:
        """The first and the last time at which it can be integrated."""
        return self.interpolant.interval(self.prediction, margin)
