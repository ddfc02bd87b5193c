"""Samplers of discrete diffusion: ancestral sampling (DDPM) and DDIM, which can also be inverted.

[0] Ho, Jain and Abbeel, Denoising Diffusion Probabilistic Models, 2020, https://arxiv.org/abs/2006.11239 (algorithm 2)
[1] Nichol and Dhariwal, Improved Denoising Diffusion Probabilistic Models, 2021, https://arxiv.org/abs/2102.09672
    (respacing, learned variance)
[2] Song, Meng and Ermon, Denoising Diffusion Implicit Models, 2021, https://arxiv.org/abs/2010.02502
    (eq. 12 and 16; inversion: section 4.3)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ldbench.core.discrete_diffusion import DiscreteDiffusion, time_of_index
from ldbench.core.field import Field
from ldbench.core.interfaces import Increments
from ldbench.core.interpolant import Interpolant, expand_like
from ldbench.sampling.grid import DTYPES, batch_time, last_of, validate_state
from ldbench.sampling.noise import increment
from ldbench.sampling.respacing import kept_indices
from ldbench.sampling.sampler import StatesSampler

NUM_TIMES = 1000  # timesteps into which a continuous interpolant is discretized


@dataclass(frozen=True)
class RespacedDiffusion:
    """The kept times of a diffusion, from almost clean (index 0) to noise, and the shorter diffusion over them."""

    times: list[float]
    diffusion: DiscreteDiffusion


def respace(field: Field, respacing: str, margin: float) -> RespacedDiffusion:
    """The timesteps that a respacing keeps.

    A continuous interpolant is discretized into a thousand timesteps, `margin` away from times where the velocity is
    not finite.
    """
    num_times = field.interpolant.num_times or NUM_TIMES
    first, last = field.interval(margin)
    last = min(last, time_of_index(0, num_times))
    times = [last - (last - first) * index / (num_times - 1) for index in kept_indices(num_times, respacing)]
    alphas_cumprod = field.interpolant.at(torch.tensor(times, dtype=torch.float64)).alpha.square()
    return RespacedDiffusion(times, DiscreteDiffusion(alphas_cumprod))


class Ancestral(StatesSampler):
    """Ancestral sampling: each step draws from the Gaussian posterior given the expected data [0].

    `respacing`: which timesteps are kept, see `respacing.kept_indices`. `clip`: the expected data is clamped to
    [-clip, clip]; None: not clamped. `margin` matters only on continuous interpolants. The variance is the network's
    [1], or the posterior's if the network has none. `dtype` is that of the state; the network sees float32.
    Raises ValueError for unknown options and for numbers out of range.
    """

    revision: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True

    def __init__(
        self, *, respacing: str | int, clip: float | None, margin: float, dtype: Literal["float32", "float64"]
    ):
        validate_state(dtype, margin)
        validate_clip(clip)
        self.respacing = str(respacing)  # a command line parses 250 as a number
        self.clip = clip
        self.margin = margin
        self.dtype = DTYPES[dtype]

    def check(self, interpolant: Interpolant) -> None:
        """Raises ValueError for an interpolant that does not preserve variance, or an invalid respacing."""
        validate_respacing("Ancestral sampling", interpolant, self.respacing)

    @torch.no_grad()
    def states(
        self,
        field: Field,
        noise: Tensor,  # (B, N, C)
        y: Tensor,  # (B,)
        *,
        stream: Increments | None = None,
        increments: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """Yields the noise and the state after each step."""
        respaced = respace(field, self.respacing, self.margin)
        x = noise.to(self.dtype)
        yield x
        for i, index in enumerate(reversed(range(len(respaced.diffusion)))):
            predicted = field(x, batch_time(respaced.times[index], x), y)
            indices = torch.full((len(x),), index)
            fraction = predicted.variance_fraction
            mean = respaced.diffusion.posterior_mean(x, clamp_data(predicted.data, self.clip), indices)
            logvar = respaced.diffusion.logvar(indices, torch.zeros_like(x) if fraction is None else fraction)
            x = mean + (0.5 * logvar).exp() * increment(i, x, stream=stream, increments=increments) if index else mean
            yield x


class DDIM(StatesSampler):
    """DDIM [2]: the marginals of ancestral sampling with `eta` times its noise: 0 is deterministic, 1 the posterior's.

    `respacing`, `clip`, `margin` and `dtype` as in `Ancestral`; the noise is recomputed from the clamped data. Raises
    ValueError for eta outside [0, 1], for unknown options and for numbers out of range.
    """

    revision: ClassVar[int] = 1

    def __init__(
        self,
        *,
        respacing: str | int,
        eta: float,
        clip: float | None,
        margin: float,
        dtype: Literal["float32", "float64"],
    ):
        validate_state(dtype, margin)
        validate_clip(clip)
        if not 0 <= eta <= 1:
            raise ValueError(f"eta of DDIM must lie in [0, 1], got {eta}.")
        self.respacing = str(respacing)  # a command line parses 250 as a number
        self.eta = eta
        self.clip = clip
        self.margin = margin
        self.dtype = DTYPES[dtype]

    @property
    def stochastic(self) -> bool:
        """Whether its steps add noise."""
        return self.eta > 0

    def check(self, interpolant: Interpolant) -> None:
        """Raises ValueError for an interpolant that does not preserve variance, or an invalid respacing."""
        validate_respacing("DDIM", interpolant, self.respacing)

    @torch.no_grad()
    def states(
        self,
        field: Field,
        noise: Tensor,  # (B, N, C)
        y: Tensor,  # (B,)
        *,
        stream: Increments | None = None,
        increments: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """Yields the noise and the state after each step."""
        respaced = respace(field, self.respacing, self.margin)
        diffusion = respaced.diffusion
        x = noise.to(self.dtype)
        yield x
        for i, index in enumerate(reversed(range(len(diffusion)))):
            data, direction = self.predict_data_and_noise(field, x, y, respaced, index)
            alpha_cumprod = diffusion.alphas_cumprod_prev[index]
            variance = self.eta**2 * diffusion.posterior_variance[index]
            x = mix(data, direction, alpha_cumprod, 1 - alpha_cumprod - variance)
            if self.eta and index:
                x = x + expand_like(variance.sqrt().reshape(1), x) * increment(
                    i, x, stream=stream, increments=increments
                )
            yield x

    def invert(
        self,
        field: Field,
        z: Tensor,  # (B, N, C)
        y: Tensor,  # (B,)
    ) -> Tensor:  # (B, N, C) float32
        """The noise that is mapped to these latents, up to discretization error: eq. 13 of [2] reversed.

        Raises ValueError if eta is not 0.
        """
        return last_of(self.inversion(field, z, y)).float()

    @torch.no_grad()
    def inversion(self, field: Field, z: Tensor, y: Tensor) -> Iterator[Tensor]:
        """Yields the latents and the state after each step towards the noise."""
        self.check(field.interpolant)
        if self.eta:
            raise ValueError(f"Noisy steps (eta={self.eta}) cannot be inverted. Choose eta=0.")
        respaced = respace(field, self.respacing, self.margin)
        x = z.to(self.dtype)
        yield x
        for index in range(len(respaced.diffusion) - 1):
            data, direction = self.predict_data_and_noise(field, x, y, respaced, index)
            alpha_cumprod = respaced.diffusion.alphas_cumprod[index + 1]
            x = mix(data, direction, alpha_cumprod, 1 - alpha_cumprod)
            yield x

    def predict_data_and_noise(
        self, field: Field, x: Tensor, y: Tensor, respaced: RespacedDiffusion, index: int
    ) -> tuple[Tensor, Tensor]:
        """The expected data of x at a timestep, clamped, and the noise that remains."""
        data = clamp_data(field(x, batch_time(respaced.times[index], x), y).data, self.clip)
        alpha_cumprod = respaced.diffusion.alphas_cumprod[index]
        return data, (x - expand_like(alpha_cumprod.sqrt().reshape(1), x) * data) / expand_like(
            (1 - alpha_cumprod).sqrt().reshape(1), x
        )


def mix(data: Tensor, noise: Tensor, alpha_cumprod: Tensor, noise_variance: Tensor) -> Tensor:
    """sqrt(alpha_cumprod) * data + sqrt(noise_variance) * noise, with the variance clamped at 0."""
    return (
        expand_like(alpha_cumprod.sqrt().reshape(1), data) * data
        + expand_like(noise_variance.clamp(min=0).sqrt().reshape(1), data) * noise
    )


def clamp_data(data: Tensor, clip: float | None) -> Tensor:
    """Data clamped to [-clip, clip]."""
    return data if clip is None else data.clamp(-clip, clip)


def validate_clip(clip: float | None) -> None:
    """Raises ValueError for a clip that is not above zero."""
    if clip is not None and not clip > 0:
        raise ValueError(f"clip must be above zero, got {clip}. clip=null does not clamp the expected data.")


def validate_respacing(name: str, interpolant: Interpolant, respacing: str) -> None:
    """Raises ValueError for an interpolant that does not preserve variance, or an invalid respacing."""
    if not interpolant.variance_preserving:
        raise ValueError(
            f"{name} needs a variance-preserving interpolant, but this generator uses {type(interpolant).__name__}. "
            "Choose sampler=heun or sampler=euler_maruyama."
        )
    kept_indices(interpolant.num_times or NUM_TIMES, respacing)
