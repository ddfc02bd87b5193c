"""Flow matching: regress what carries noise to data, in continuous time.

[0] Lipman et al., Flow Matching for Generative Modeling, 2023, https://arxiv.org/abs/2210.02747
[1] Ma et al., SiT, 2024, https://arxiv.org/abs/2401.08740 (predictions and weightings: section 2 and appendix A)
[2] Yao et al., Reconstruction vs. Generation, 2025, https://arxiv.org/abs/2501.01423 (cosine term: section 4)
[3] Chen et al., Masked Autoencoders Are Effective Tokenizers (MAETok), 2025, https://arxiv.org/abs/2502.03444 (t = 1 is noise)
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ldbench.core.distributed import normal_like
from ldbench.core.field import Field, Prediction
from ldbench.core.interfaces import Network, TimeDistribution
from ldbench.core.interpolant import KINDS, Coefficients, Interpolant, Kind, conversion_coefficients

WEIGHTINGS = ("none", "velocity", "likelihood")


@dataclass(frozen=True)
class NetworkTime:
    """How a network counts time: its t is `start + direction * t` of the house's."""

    start: float
    direction: float

    def of(
        self,
        t: Tensor,  # (B,) 0 noise, 1 data
    ) -> Tensor:  # (B,) float64
        """The network's time."""
        return self.start + self.direction * t.detach().to("cpu", torch.float64)

    def velocity(self, velocity: Tensor) -> Tensor:
        """A velocity from one time to the other; the two ways are the same."""
        return self.direction * velocity


NETWORK_TIMES = {"data_at_one": NetworkTime(0.0, 1.0), "noise_at_one": NetworkTime(1.0, -1.0)}


class FlowMatching:
    """The squared error of a prediction, weighted, and for velocities `cosine_weight` times how far their directions are from the true ones.

    `prediction`: what the network says: velocity, noise, data, score or angular. The error of a score is counted in units of the noise.
    `weighting`: `none`; `velocity` counts the error of the velocity that follows from the prediction; `likelihood` that of the noise times
    diffusion / sigma^2 (the bound of the likelihood, [1]).
    `network_time`: `data_at_one` (SiT, LightningDiT) or `noise_at_one` (MAETok), where velocities point to the noise.
    `margin`: how far from times at which the prediction or its target is not finite training stays; all drawn times are scaled into the rest.
    A network with a learned variance is read without it (SiT's 2 C outputs).
    Raises ValueError for unknown words, and for what does not go together.
    """

    revision: ClassVar[int] = 1
    learned_variance: ClassVar[bool] = False

    def __init__(
        self,
        *,
        interpolant: Interpolant,
        times: TimeDistribution,
        prediction: Kind,
        weighting: Literal["none", "velocity", "likelihood"],
        cosine_weight: float,
        network_time: Literal["data_at_one", "noise_at_one"],
        margin: float,
    ):
        for name, given, known in (
            ("prediction", prediction, KINDS),
            ("weighting", weighting, WEIGHTINGS),
            ("network_time", network_time, tuple(NETWORK_TIMES)),
        ):
            if given not in known:
                raise ValueError(f"Unknown {name} {given!r} of flow matching. Choose one of {', '.join(known)}.")
        if not 0 < margin < 0.5 or cosine_weight < 0:
            raise ValueError(
                f"Flow matching needs 0 < margin < 0.5 and cosine_weight >= 0, got {margin} and {cosine_weight}."
            )
        lives = type(interpolant).__name__
        if interpolant.num_times is not None:
            raise ValueError(
                f"Flow matching needs continuous time, but {lives} counts {interpolant.num_times} times. "
                "Choose interpolant=linear, gvp or vp, or objective=diffusion."
            )
        if prediction == "angular" and not interpolant.variance_preserving:
            raise ValueError(
                f"An angular velocity needs a variance-preserving interpolant, but this is {lives}. Choose interpolant=gvp or vp."
            )
        if prediction == "velocity" and weighting != "none":
            raise ValueError(
                f"Velocities are counted as they are, not by weighting={weighting}. Choose weighting=none, or prediction=noise."
            )
        if prediction != "velocity" and cosine_weight:
            raise ValueError(
                f"The cosine term compares velocities, but prediction={prediction}. Choose cosine_weight=0, or prediction=velocity."
            )
        self.interpolant = interpolant
        self.times = times
        self.prediction = prediction
        self.weighting = weighting
        self.cosine_weight = cosine_weight
        self.network_time = NETWORK_TIMES[network_time]
        self.margin = margin

    def loss(
        self,
        backbone: Network,
        z: Tensor,  # (B, N, C)
        y: Tensor,  # (B,)
        *,
        step: int,
        t: Tensor | None = None,  # (B,)
        noise: Tensor | None = None,  # (B, N, C)
    ) -> dict[str, Tensor]:  # (B,) float32 each
        """The terms by name: the prediction's, and `cosine` where it counts. What is not handed in is drawn from torch's global stream."""
        z = z.float()
        t = self.within(self.times.sample(len(z), step=step)) if t is None else t
        noise = normal_like(z) if noise is None else noise.float()
        x, velocity = self.interpolant.between(noise, z, t)
        predicted = self.predicted(backbone, x, t, y)  # (B, N, C)
        target = (
            velocity
            if self.prediction == "velocity"
            else self.interpolant.perfect_prediction(self.prediction, noise, z, t)
        )
        weight = self.weight(self.interpolant.at(t)).to(torch.float32).to(z.device, non_blocking=True)  # (B,)
        terms = {self.prediction: weight * (predicted - target).square().mean(dim=(1, 2))}
        if self.cosine_weight:
            angle = 1 - F.cosine_similarity(predicted, velocity, dim=-1)  # (B, N)
            terms["cosine"] = self.cosine_weight * angle.mean(dim=1)
        return terms

    def field(self, backbone: Network) -> Field:
        """The backbone as a field."""
        predict = partial(self.prediction_of, backbone)
        return Field(
            predict,
            interpolant=self.interpolant,
            prediction=self.prediction,
            null_class=backbone.null_class,
            network=backbone,
        )

    def prediction_of(
        self,
        backbone: Network,
        x: Tensor,  # (B, N, C)
        t: Tensor,  # (B,)
        y: Tensor,  # (B,)
    ) -> Prediction:
        """What the network says of x, in the words of a field."""
        return Prediction(self.predicted(backbone, x, t, y), self.prediction, x, t, self.interpolant)

    def predicted(
        self,
        backbone: Network,
        x: Tensor,  # (B, N, C)
        t: Tensor,  # (B,)
        y: Tensor,  # (B,)
    ) -> Tensor:  # (B, N, C) in the precision of x
        """What the network says of x, in the house's time; the network itself sees float32."""
        told = backbone(x.float(), self.network_time.of(t).float().to(x.device, non_blocking=True), y)
        if backbone.learned_variance:
            told = told.chunk(2, dim=-1)[0]
        told = told.to(x.dtype)
        return self.network_time.velocity(told) if self.prediction == "velocity" else told

    def within(
        self,
        t: Tensor,  # (B,) in [0, 1]
    ) -> Tensor:  # (B,)
        """Times scaled into those where the prediction and its target are finite."""
        first, last = self.interpolant.interval(self.prediction, self.margin)
        return first + (last - first) * t

    def weight(self, c: Coefficients) -> Tensor:  # (B,) float64
        """What the squared error of a prediction counts at these times."""
        unit = c.sigma if self.prediction == "score" else torch.ones_like(c.sigma)
        if self.weighting == "velocity":
            unit = conversion_coefficients(c, self.prediction, "velocity")[1]
        if self.weighting == "likelihood":
            unit = conversion_coefficients(c, self.prediction, "noise")[1] * c.diffusion.sqrt() / c.sigma
        return unit.square()
