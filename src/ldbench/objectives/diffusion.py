"""Diffusion in discrete time (DDPM): regress the noise, and learn the posterior variance by the variational bound.

[0] Ho, Jain and Abbeel, Denoising Diffusion Probabilistic Models, 2020, https://arxiv.org/abs/2006.11239
[1] Nichol and Dhariwal, Improved Denoising Diffusion Probabilistic Models, 2021, https://arxiv.org/abs/2102.09672
    (learned variance: eq. 15, 16)
[2] Peebles and Xie, Scalable Diffusion Models with Transformers (DiT), 2023, https://arxiv.org/abs/2212.09748
[3] Salimans and Ho, Progressive Distillation, 2022, https://arxiv.org/abs/2202.00512
    (prediction of the angular velocity, their v)
"""

import math
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ldbench.core.discrete_diffusion import DiscreteDiffusion, fractional_index, index_at, times_of_indices
from ldbench.core.distributed import normal_like
from ldbench.core.field import Field, Prediction
from ldbench.core.interfaces import Network, TimeDistribution
from ldbench.core.interpolant import Interpolant, Kind, expand_like

PREDICTIONS = ("noise", "data", "angular")
VARIANCES = ("fixed_small", "fixed_large", "learned_range")
LOSSES = ("mse", "rescaled_mse", "kl", "rescaled_kl")
HALF_BIN = 1 / 255  # half the distance of 256 levels in [-1, 1]
MIN_PROBABILITY = 1e-12  # before a logarithm


class Diffusion:
    """The squared error of a prediction, plus the variational bound, mean detached, if the variance is learned.

    `prediction`: noise (epsilon), data (x0) or angular (v).
    `variance` of the reverse step: the posterior's (fixed_small), beta (fixed_large), or interpolated between the two
    by the network's other C outputs (learned_range).
    `loss`: `mse` as in DiT; `rescaled_mse` with the bound times num_times / 1000; `kl` only the bound, in bits per
    dimension and step; `rescaled_kl` times num_times, an estimate of the whole bound.
    Times of any distribution are rounded to the timestep whose part of [0, 1] contains them. If the variance is fixed,
    the variance outputs of a network are ignored. Raises ValueError for unknown options and incompatible settings.
    """

    revision: ClassVar[int] = 1

    def __init__(
        self,
        *,
        interpolant: Interpolant,
        times: TimeDistribution,
        prediction: Kind,
        variance: Literal["fixed_small", "fixed_large", "learned_range"],
        loss: Literal["mse", "rescaled_mse", "kl", "rescaled_kl"],
    ):
        for name, value, known in (
            ("prediction", prediction, PREDICTIONS),
            ("variance", variance, VARIANCES),
            ("loss", loss, LOSSES),
        ):
            if value not in known:
                raise ValueError(f"Unknown {name} {value!r} of diffusion. Choose one of {', '.join(known)}.")
        if interpolant.num_times is None:
            raise ValueError(
                f"Diffusion needs discrete time, but {type(interpolant).__name__} is continuous. "
                "Choose interpolant=discrete_linear or discrete_cosine, or objective=flow_matching."
            )
        self.interpolant = interpolant
        self.num_times = interpolant.num_times
        self.times = times
        self.prediction = prediction
        self.variance = variance
        self.loss_type = loss
        self.diffusion = DiscreteDiffusion(
            interpolant.at(times_of_indices(torch.arange(self.num_times), self.num_times)).alpha.square()
        )

    @property
    def learned_variance(self) -> bool:
        """Whether the backbone has 2 C outputs."""
        return self.variance == "learned_range"

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
        """The loss terms by name: the prediction's, and `bound`.

        Missing `t` and `noise` are drawn from torch's global RNG.
        """
        z = z.float()
        index = index_at(self.draw_times(z, step=step) if t is None else t, self.num_times)
        t = times_of_indices(index, self.num_times)
        noise = normal_like(z) if noise is None else noise.float()
        x = self.interpolant.mix(noise, z, t)
        predicted = self.predict(backbone, x, t, y)
        if self.loss_type in ("kl", "rescaled_kl"):
            steps = self.num_times if self.loss_type == "rescaled_kl" else 1
            return {"bound": steps * self.bound(predicted, z, index)}
        target = self.interpolant.perfect_prediction(self.prediction, noise, z, t)
        terms: dict[str, Tensor] = {self.prediction: (predicted.value - target).square().mean(dim=(1, 2))}
        if self.learned_variance:
            scale = self.num_times / 1000 if self.loss_type == "rescaled_mse" else 1.0
            terms["bound"] = scale * self.bound(predicted.with_value(predicted.value.detach()), z, index)
        return terms

    def draw_times(self, z: Tensor, *, step: int) -> Tensor:  # (B,) float64
        """Training times of these latents from torch's global RNG."""
        return self.times.sample(len(z), step=step, num_numbers=z[0].numel())

    def field(self, backbone: Network) -> Field:
        """The backbone as a field. Raises ValueError for a backbone without the required variance outputs."""
        if self.learned_variance and not backbone.learned_variance:
            raise ValueError(
                "variance=learned_range needs a backbone with 2 C outputs, and this one has C. "
                "Choose variance=fixed_small or fixed_large."
            )
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
    ) -> Prediction:  # in the precision of x
        """The network's prediction at x; the network sees float32, and its time is the index of the timestep."""
        index = fractional_index(t, self.num_times).float().to(x.device, non_blocking=True)
        output = backbone(x.float(), index, y).to(x.dtype)
        value, variance = output.chunk(2, dim=-1) if backbone.learned_variance else (output, output)
        fraction = self.variance_fraction(variance, t)
        return Prediction(value, self.prediction, x, t, self.interpolant, variance_fraction=fraction)

    def variance_fraction(
        self,
        output: Tensor,  # (B, N, C) the variance outputs, read only if the variance is learned
        t: Tensor,  # (B,)
    ) -> Tensor:  # (B, N, C) or (B, 1, 1)
        """The variance as a fraction of the range from the posterior's (0) to beta (1)."""
        if self.variance == "learned_range":
            return (output + 1) / 2
        if self.variance == "fixed_small":
            return expand_like(torch.zeros(len(t), dtype=torch.float64), output)
        # the posterior's at the last step, as in [1]'s code
        return expand_like((index_at(t, self.num_times) > 0).double(), output)

    def bound(
        self,
        predicted: Prediction,
        z: Tensor,  # (B, N, C)
        index: Tensor,  # (B,)
    ) -> Tensor:  # (B,)
        """One step's part of the variational bound: eq. 5 of [0], in bits per dimension."""
        assert predicted.variance_fraction is not None, "diffusion always knows its variance"
        mean = self.diffusion.posterior_mean(predicted.x, predicted.data, index)
        logvar = self.diffusion.logvar(index, predicted.variance_fraction)
        true_mean = self.diffusion.posterior_mean(predicted.x, z, index)
        true_logvar = expand_like(self.diffusion.posterior_logvar[index], z)
        divergence = 0.5 * (
            logvar - true_logvar - 1 + (true_logvar - logvar).exp() + (true_mean - mean).square() * (-logvar).exp()
        )
        nats = torch.where(
            expand_like((index == 0).double(), z) > 0, discretized_nll(z, mean, 0.5 * logvar), divergence
        )
        return nats.mean(dim=(1, 2)) / math.log(2)


def discretized_nll(
    z: Tensor,  # (B, N, C)
    mean: Tensor,  # (B, N, C)
    logstd: Tensor,  # (B, N, C), or anything that broadcasts to it
) -> Tensor:  # (B, N, C) nats
    """The negative log probability of z's bin, one of 256 in [-1, 1] with the outermost unbounded: eq. 13 of [0]."""
    above = normal_cdf((z - mean + HALF_BIN) * (-logstd).exp())
    below = normal_cdf((z - mean - HALF_BIN) * (-logstd).exp())
    inside = (above - below).clamp(min=MIN_PROBABILITY).log()
    log_p = torch.where(
        z < -0.999,
        above.clamp(min=MIN_PROBABILITY).log(),
        torch.where(z > 0.999, (1 - below).clamp(min=MIN_PROBABILITY).log(), inside),
    )
    return -log_p


def normal_cdf(x: Tensor) -> Tensor:
    """The distribution function of the standard normal, approximated by a tanh as in [1]'s code (error below 4e-4)."""
    return 0.5 * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh())
