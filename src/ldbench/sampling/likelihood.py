"""The likelihood of latents under a field: the probability-flow ODE from data to noise, with its divergence.

[0] Song et al., Score-Based Generative Modeling through Stochastic Differential Equations, 2021,
    https://arxiv.org/abs/2011.13456 (eq. 39, 40)
[1] Hutchinson, A Stochastic Estimator of the Trace of the Influence Matrix, 1989,
    https://doi.org/10.1080/03610918908812806
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ldbench.core.field import Field
from ldbench.core.interfaces import Increments
from ldbench.core.time_shift import Shift, resolve_shift
from ldbench.sampling.grid import DTYPES, batch_time, time_grid, validate_grid, validate_state
from ldbench.sampling.noise import increment
from ldbench.sampling.runge_kutta import get_rule


@dataclass(frozen=True)
class LogLikelihood:
    """The log density of latents under a field."""

    nats: Tensor  # (B,) log density of the normalized latents, in nats per latent
    noise: Tensor  # (B, N, C) the noise that is mapped to them

    @property
    def bits_per_dimension(self) -> Tensor:  # (B,)
        """The negative log density in bits per token and channel; it may be negative, because it is of a density."""
        return -self.nats / self.noise[0].numel() / math.log(2)


class Likelihood:
    """The log density of latents [0] by `num_steps` steps of a Runge-Kutta rule from t = 1 to t = 0.

    Each stage takes one network call and one gradient. The divergence is estimated with a Rademacher probe per call
    [1], which is exact if the velocity's Jacobian is diagonal. If the field is not finite at an end, the integration
    stops `margin` before it: the density is then that of slightly noisy latents. `shift` and `dtype` as in `FixedGrid`.
    """

    revision: ClassVar[int] = 1

    def __init__(self, *, rule: str, num_steps: int, shift: Shift, margin: float, dtype: Literal["float32", "float64"]):
        validate_grid(num_steps, shift)
        validate_state(dtype, margin)
        self.rule = get_rule(rule)
        self.num_steps = num_steps
        self.shift = shift
        self.margin = margin
        self.dtype = DTYPES[dtype]

    def __call__(
        self,
        field: Field,
        z: Tensor,  # (B, N, C) normalized latents
        y: Tensor,  # (B,)
        *,
        stream: Increments | None = None,
        probes: Tensor | None = None,  # (calls, B, N, C) of -1 and 1
    ) -> LogLikelihood:
        """The log density of each latent. Raises ValueError without a source of probes."""
        calls = 0

        def derivative(state: Tensor, time: float) -> Tensor:
            nonlocal calls
            x = state[:, :-1].reshape(z.shape)
            probe = increment(calls, x, stream=stream, increments=probes)
            probe = torch.where(probe < 0, -1.0, 1.0).to(x.dtype)
            calls += 1
            velocity, divergence = velocity_and_divergence(field, x, batch_time(time, x), y, probe)
            return torch.cat([velocity.flatten(1), divergence[:, None]], dim=1)

        first, last = field.interval(self.margin)
        state = torch.cat(
            [z.to(self.dtype).flatten(1), torch.zeros(len(z), 1, dtype=self.dtype, device=z.device)], dim=1
        )
        shift = resolve_shift(self.shift, z[0].numel())
        grid = time_grid(first, last, num_steps=self.num_steps, shift=shift)
        for start, end in pairwise(grid.flip(0).tolist()):
            state = self.rule.step(derivative, state, start, end)
        noise, log_volume = state[:, :-1], state[:, -1]
        nats = -0.5 * noise.square().sum(dim=1) - 0.5 * noise.shape[1] * math.log(2 * math.pi) + log_volume
        return LogLikelihood(nats.float(), noise.reshape(z.shape).float())


def velocity_and_divergence(
    field: Field,
    x: Tensor,  # (B, N, C)
    t: Tensor,  # (B,)
    y: Tensor,  # (B,)
    probe: Tensor,  # (B, N, C) of -1 and 1
) -> tuple[Tensor, Tensor]:  # (B, N, C) and (B,)
    """The velocity, and an estimate of its divergence [1]."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        velocity = field(x, t, y).velocity
        (gradient,) = torch.autograd.grad((velocity * probe).sum(), x)
    return velocity.detach(), (gradient * probe).sum(dim=(1, 2))
