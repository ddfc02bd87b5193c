"""Flow matching: regress the velocity from noise to data, or an equivalent prediction, in continuous time.

[0] Lipman et al., Flow Matching for Generative Modeling, 2023, https://arxiv.org/abs/2210.02747
[1] Ma et al., SiT, 2024, https://arxiv.org/abs/2401.08740 (predictions and weightings: section 2 and appendix A)
[2] Yao et al., Reconstruction vs. Generation, 2025, https://arxiv.org/abs/2501.01423 (cosine term: section 4)
[3] Chen et al., Masked Autoencoders Are Effective Tokenizers (MAETok), 2025, https://arxiv.org/abs/2502.03444
    (t = 1 is noise)
[4] Li and He, Back to Basics: Let Denoising Generative Models Denoise, 2025, https://arxiv.org/abs/2511.13720 (the data
    predicted, the error of the velocity)
"""

from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ldbench.core.distributed import normal_like
from ldbench.core.field import Field, Prediction
from ldbench.core.interfaces import Network, TimeDistribution
from ldbench.core.interpolant import KINDS, Coefficients, Interpolant, Kind, conversion_coefficients
from ldbench.core.network_time import NETWORK_TIMES

WEIGHTINGS = ("none", "velocity", "likelihood")


class FlowMatching:
    """The weighted squared error of a prediction, and for velocities `cosine_weight` times their cosine distance [2].

    `prediction`: what the network predicts: velocity, noise, data, score or angular. The error of a score is scaled by
    sigma, in units of the noise.
    `weighting`: `none`; `velocity`: the error of the velocity that follows from the prediction; `likelihood`: that of
    the noise times diffusion / sigma^2 (the bound of the likelihood, [1]).
    `max_velocity_factor`: with weighting=velocity, the factor from the prediction to the velocity is at most this, in
    the loss and in the velocities of the field ([4]: 20 with prediction=data, whose factor on the linear interpolant is
    1 / (1 - t)); None: any.
    `network_time`: `data_at_one` (SiT, LightningDiT) or `noise_at_one` (MAETok), where velocities point to the noise.
    `margin`: the distance of training times to those at which the prediction or its target is not finite; all sampled
    times are scaled into the remaining interval. The variance outputs of a network are ignored (SiT's 2 C outputs).
    Raises ValueError for unknown options and incompatible settings.
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
        max_velocity_factor: float | None = None,
    ):
        for name, value, known in (
            ("prediction", prediction, KINDS),
            ("weighting", weighting, WEIGHTINGS),
            ("network_time", network_time, tuple(NETWORK_TIMES)),
        ):
            if value not in known:
                raise ValueError(f"Unknown {name} {value!r} of flow matching. Choose one of {', '.join(known)}.")
        if not 0 < margin < 0.5 or cosine_weight < 0:
            raise ValueError(
                f"Flow matching needs 0 < margin < 0.5 and cosine_weight >= 0, got {margin} and {cosine_weight}."
            )
        if max_velocity_factor is not None and not (max_velocity_factor > 1 and weighting == "velocity"):
            raise ValueError(
                f"max_velocity_factor must be above 1, and is of weighting=velocity, got {max_velocity_factor} and "
                f"weighting={weighting}."
            )
        interpolant_name = type(interpolant).__name__
        if interpolant.num_times is not None:
            raise ValueError(
                f"Flow matching needs continuous time, but {interpolant_name} has {interpolant.num_times} discrete "
                "timesteps. Choose interpolant=linear, gvp or vp, or objective=diffusion."
            )
        if prediction == "angular" and not interpolant.variance_preserving:
            raise ValueError(
                f"An angular velocity needs a variance-preserving interpolant, but this is {interpolant_name}. "
                "Choose interpolant=gvp or vp."
            )
        if prediction == "velocity" and weighting != "none":
            raise ValueError(
                f"The error of velocities cannot have weighting={weighting}. "
                "Choose weighting=none, or prediction=noise."
            )
        if prediction != "velocity" and cosine_weight:
            raise ValueError(
                f"The cosine term compares velocities, but prediction={prediction}. "
                "Choose cosine_weight=0, or prediction=velocity."
            )
        self.interpolant = interpolant
        self.times = times
        self.prediction = prediction
        self.weighting = weighting
        self.cosine_weight = cosine_weight
        self.network_time = NETWORK_TIMES[network_time]
        self.margin = margin
        self.max_velocity_factor = max_velocity_factor

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
        """The loss terms by name: the prediction's, and `cosine` if it has a weight.

        Missing `t` and `noise` are drawn from torch's global RNG.
        """
        z = z.float()
        t = self.draw_times(z, step=step) if t is None else t
        noise = normal_like(z) if noise is None else noise.float()
        x, velocity = self.interpolant.between(noise, z, t)
        predicted = self.predict_value(backbone, x, t, y)  # (B, N, C)
        target = (
            velocity
            if self.prediction == "velocity"
            else self.interpolant.perfect_prediction(self.prediction, noise, z, t)
        )
        weight = self.weight(self.interpolant.at(t)).to(torch.float32).to(z.device, non_blocking=True)  # (B,)
        terms: dict[str, Tensor] = {self.prediction: weight * (predicted - target).square().mean(dim=(1, 2))}
        if self.cosine_weight:
            angle = 1 - F.cosine_similarity(predicted, velocity, dim=-1)  # (B, N)
            terms["cosine"] = self.cosine_weight * angle.mean(dim=1)
        return terms

    def draw_times(self, z: Tensor, *, step: int) -> Tensor:  # (B,) float64
        """Training times of these latents from torch's global RNG."""
        return self.scale_times(self.times.sample(len(z), step=step, num_numbers=z[0].numel()))

    def field(self, backbone: Network) -> Field:
        """The backbone as a field."""
        predict = partial(self.predict, backbone)
        return Field(
            predict,
            interpolant=self.interpolant,
            prediction=self.prediction,
            null_class=backbone.null_class,
            network=backbone,
        )

    def predict(
        self,
        backbone: Network,
        x: Tensor,  # (B, N, C)
        t: Tensor,  # (B,)
        y: Tensor,  # (B,)
    ) -> Prediction:
        """The network's prediction at x."""
        return Prediction(
            self.predict_value(backbone, x, t, y),
            self.prediction,
            x,
            t,
            self.interpolant,
            max_velocity_factor=self.max_velocity_factor,
        )

    def predict_value(
        self,
        backbone: Network,
        x: Tensor,  # (B, N, C)
        t: Tensor,  # (B,)
        y: Tensor,  # (B,)
    ) -> Tensor:  # (B, N, C) in the precision of x
        """The value of the network's prediction in our time convention; the network itself sees float32."""
        value = backbone(x.float(), self.network_time.of(t).float().to(x.device, non_blocking=True), y)
        if backbone.learned_variance:
            value = value.chunk(2, dim=-1)[0]
        value = value.to(x.dtype)
        return self.network_time.velocity(value) if self.prediction == "velocity" else value

    def scale_times(
        self,
        t: Tensor,  # (B,) in [0, 1]
    ) -> Tensor:  # (B,)
        """Times scaled into the interval in which the prediction and its target are finite."""
        first, last = self.interpolant.interval(self.prediction, self.margin)
        return first + (last - first) * t

    def weight(self, c: Coefficients) -> Tensor:  # (B,) float64
        """The weight of the squared error of a prediction at these times."""
        scale = c.sigma if self.prediction == "score" else torch.ones_like(c.sigma)
        if self.weighting == "velocity":
            scale = conversion_coefficients(c, self.prediction, "velocity")[1].abs()
            if self.max_velocity_factor is not None:
                scale = scale.clamp(max=self.max_velocity_factor)
        if self.weighting == "likelihood":
            scale = conversion_coefficients(c, self.prediction, "noise")[1] * c.diffusion.sqrt() / c.sigma
        return scale.square()
