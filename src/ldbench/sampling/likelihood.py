"""How likely latents are under a field: the probability-flow ODE from data to noise, with the change of volume on the way.

[0] Song et al., Score-Based Generative Modeling through Stochastic Differential Equations, 2021, https://arxiv.org/abs/2011.13456 (eq. 39, 40)
[1] Hutchinson, A Stochastic Estimator of the Trace of the Influence Matrix, 1989, https://doi.org/10.1080/03610918908812806
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ldbench.core.field import Field
from ldbench.core.interfaces import Increments
from ldbench.sampling.grid import DTYPES, at, check_grid, check_state, time_grid
from ldbench.sampling.noise import increment
from ldbench.sampling.runge_kutta import rule_named


@dataclass(frozen=True)
class LogLikelihood:
    """What a field says of latents."""

    nats: Tensor  # (B,) log density of the normalised latents, in nats for the whole of a latent
    noise: Tensor  # (B, N, C) where they come from

    @property
    def bits_per_dimension(self) -> Tensor:  # (B,)
        """The negative log density in bits for each token and channel; of a density, so that it may be below zero."""
        return -self.nats / self.noise[0].numel() / math.log(2)


class Likelihood:
    """The log density of latents by `num_steps` steps of a Runge-Kutta rule from t = 1 to t = 0; one network call and one gradient a stage.

    The divergence is estimated by a Rademacher probe in each call [1], exact where the velocity's Jacobian is diagonal. Where a field is not
    finite at an end, `margin` is kept from it: the density is then that of the latents with so much noise. On `shift` and `dtype` see `FixedGrid`.
    """

    revision: ClassVar[int] = 1

    def __init__(self, *, rule: str, num_steps: int, shift: float, margin: float, dtype: Literal["float32", "float64"]):
        check_grid(num_steps, shift)
        check_state(dtype, margin)
        self.rule = rule_named(rule)
        self.num_steps = num_steps
        self.shift = shift
        self.margin = margin
        self.dtype = DTYPES[dtype]

    def __call__(
        self,
        field: Field,
        z: Tensor,  # (B, N, C) normalised latents
        y: Tensor,  # (B,)
        *,
        stream: Increments | None = None,
        probes: Tensor | None = None,  # (calls, B, N, C) of -1 and 1
    ) -> LogLikelihood:
        """The log density of each latent. Raises ValueError without a source of probes."""
        calls = 0

        def slope(state: Tensor, time: float) -> Tensor:
            nonlocal calls
            x = state[:, :-1].reshape(z.shape)
            probe = increment(calls, x, stream=stream, increments=probes)
            probe = torch.where(probe < 0, -1.0, 1.0).to(x.dtype)
            calls += 1
            velocity, divergence = with_divergence(field, x, at(time, x), y, probe)
            return torch.cat([velocity.flatten(1), divergence[:, None]], dim=1)

        first, last = field.interval(self.margin)
        state = torch.cat(
            [z.to(self.dtype).flatten(1), torch.zeros(len(z), 1, dtype=self.dtype, device=z.device)], dim=1
        )
        for start, end in pairwise(time_grid(first, last, num_steps=self.num_steps, shift=self.shift).flip(0).tolist()):
            state = self.rule.step(slope, state, start, end)
        noise, volume = state[:, :-1], state[:, -1]
        nats = -0.5 * noise.square().sum(dim=1) - 0.5 * noise.shape[1] * math.log(2 * math.pi) + volume
        return LogLikelihood(nats.float(), noise.reshape(z.shape).float())


def with_divergence(
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
        (slope,) = torch.autograd.grad((velocity * probe).sum(), x)
    return velocity.detach(), (slope * probe).sum(dim=(1, 2))
