"""Back through a chain: ancestral sampling (DDPM), and the same marginals with less noise (DDIM), which also goes forth.

[0] Ho, Jain and Abbeel, Denoising Diffusion Probabilistic Models, 2020, https://arxiv.org/abs/2006.11239 (algorithm 2)
[1] Nichol and Dhariwal, Improved Denoising Diffusion Probabilistic Models, 2021, https://arxiv.org/abs/2102.09672 (respacing, learned variance)
[2] Song, Meng and Ermon, Denoising Diffusion Implicit Models, 2021, https://arxiv.org/abs/2010.02502 (eq. 12 and 16; inversion: section 4.3)
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
from ldbench.sampling.grid import DTYPES, at, check_state, last_of
from ldbench.sampling.noise import increment
from ldbench.sampling.respacing import kept
from ldbench.sampling.sampler import StatesSampler

NUM_TIMES = 1000  # that are counted on a continuous interpolant


@dataclass(frozen=True)
class Ladder:
    """The kept times of a chain, from almost clean (step 0) to noise, and the shorter chain through them."""

    times: list[float]
    chain: DiscreteDiffusion


def ladder(field: Field, respacing: str, margin: float) -> Ladder:
    """The steps of a respacing. A continuous interpolant is counted in a thousand times, `margin` away from where the velocity is not finite."""
    num_times = field.interpolant.num_times or NUM_TIMES
    first, last = field.interval(margin)
    last = min(last, time_of_index(0, num_times))
    times = [last - (last - first) * index / (num_times - 1) for index in kept(num_times, respacing)]
    return Ladder(
        times, DiscreteDiffusion(field.interpolant.at(torch.tensor(times, dtype=torch.float64)).alpha.square())
    )


class Ancestral(StatesSampler):
    """One step back after another, each from the Gaussian around the expected data [0], with the variance that the network tells [1].

    `respacing`: which times of the chain are kept, see `respacing.kept`. `clip`: the expected data is held in [-clip, clip]; None: it is not.
    `margin` matters on continuous interpolants alone. Without a variance of the network, the posterior's is taken.
    `dtype` is that of the state; the network sees float32. Raises ValueError for unknown words and for numbers out of range.
    """

    revision: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True

    def __init__(
        self, *, respacing: str | int, clip: float | None, margin: float, dtype: Literal["float32", "float64"]
    ):
        check_state(dtype, margin)
        check_clip(clip)
        self.respacing = str(respacing)  # a command line makes 250 a number
        self.clip = clip
        self.margin = margin
        self.dtype = DTYPES[dtype]

    def check(self, interpolant: Interpolant) -> None:
        """Raises ValueError for an interpolant that does not preserve variance, or a respacing that its times do not have."""
        check_chain("Ancestral sampling", interpolant, self.respacing)

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
        steps = ladder(field, self.respacing, self.margin)
        x = noise.to(self.dtype)
        yield x
        for i, index in enumerate(reversed(range(len(steps.chain)))):
            predicted = field(x, at(steps.times[index], x), y)
            here = torch.full((len(x),), index)
            share = predicted.variance_fraction
            mean = steps.chain.posterior_mean(x, clipped(predicted.data, self.clip), here)
            logvar = steps.chain.logvar(here, torch.zeros_like(x) if share is None else share)
            x = mean + (0.5 * logvar).exp() * increment(i, x, stream=stream, increments=increments) if index else mean
            yield x


class DDIM(StatesSampler):
    """Steps along the same marginals as ancestral sampling, `eta` times as noisy: 0 for none, 1 for as much as the posterior's [2].

    `respacing`, `clip`, `margin` and `dtype` as in `Ancestral`; the noise is told again from the clipped data. Raises ValueError for eta below 0
    or above 1, for unknown words and for numbers out of range.
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
        check_state(dtype, margin)
        check_clip(clip)
        if not 0 <= eta <= 1:
            raise ValueError(f"eta of DDIM must lie in [0, 1], got {eta}.")
        self.respacing = str(respacing)  # a command line makes 250 a number
        self.eta = eta
        self.clip = clip
        self.margin = margin
        self.dtype = DTYPES[dtype]

    @property
    def stochastic(self) -> bool:
        """Whether its steps are noisy."""
        return self.eta > 0

    def check(self, interpolant: Interpolant) -> None:
        """Raises ValueError for an interpolant that does not preserve variance, or a respacing that its times do not have."""
        check_chain("DDIM", interpolant, self.respacing)

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
        steps = ladder(field, self.respacing, self.margin)
        chain = steps.chain
        x = noise.to(self.dtype)
        yield x
        for i, index in enumerate(reversed(range(len(chain)))):
            data, direction = self.ends(field, x, y, steps, index)
            before = chain.alphas_cumprod_prev[index]
            variance = self.eta**2 * chain.posterior_variance[index]
            x = mixed(data, direction, before, 1 - before - variance)
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
        """The noise that these latents come from, up to the error of its steps: eq. 13 of [2] backwards. Raises ValueError for noisy steps."""
        return last_of(self.inversion(field, z, y)).float()

    @torch.no_grad()
    def inversion(self, field: Field, z: Tensor, y: Tensor) -> Iterator[Tensor]:
        """The latents, and the state after each step towards the noise."""
        self.check(field.interpolant)
        if self.eta:
            raise ValueError(f"Noisy steps (eta={self.eta}) cannot be inverted. Choose eta=0.")
        steps = ladder(field, self.respacing, self.margin)
        x = z.to(self.dtype)
        yield x
        for index in range(len(steps.chain) - 1):
            data, direction = self.ends(field, x, y, steps, index)
            after = steps.chain.alphas_cumprod[index + 1]
            x = mixed(data, direction, after, 1 - after)
            yield x

    def ends(self, field: Field, x: Tensor, y: Tensor, steps: Ladder, index: int) -> tuple[Tensor, Tensor]:
        """The data that is expected behind x at a step, clipped, and the noise that this leaves."""
        data = clipped(field(x, at(steps.times[index], x), y).data, self.clip)
        share = steps.chain.alphas_cumprod[index]
        return data, (x - expand_like(share.sqrt().reshape(1), x) * data) / expand_like(
            (1 - share).sqrt().reshape(1), x
        )


def mixed(data: Tensor, direction: Tensor, share: Tensor, rest: Tensor) -> Tensor:
    """sqrt(share) * data + sqrt(rest) * direction, the rest being at least nothing."""
    return (
        expand_like(share.sqrt().reshape(1), data) * data
        + expand_like(rest.clamp(min=0).sqrt().reshape(1), data) * direction
    )


def clipped(data: Tensor, clip: float | None) -> Tensor:
    """Data held in [-clip, clip]."""
    return data if clip is None else data.clamp(-clip, clip)


def check_clip(clip: float | None) -> None:
    """Raises ValueError for a clip that is not above zero."""
    if clip is not None and not clip > 0:
        raise ValueError(f"clip must be above zero, got {clip}. clip=null leaves the expected data as it is.")


def check_chain(who: str, interpolant: Interpolant, respacing: str) -> None:
    """Raises ValueError for an interpolant without a chain, or a respacing that it does not have."""
    if not interpolant.variance_preserving:
        raise ValueError(
            f"{who} needs a variance-preserving interpolant, but this generator lives on {type(interpolant).__name__}. "
            "Choose sampler=heun or sampler=euler_maruyama."
        )
    kept(interpolant.num_times or NUM_TIMES, respacing)
