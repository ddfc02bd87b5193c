"""Distributions of training times on [0, 1], where 0 is noise and 1 is data.

[0] Esser et al., Scaling Rectified Flow Transformers (SD3), 2024, https://arxiv.org/abs/2403.03206
    (logit-normal: eq. 19)
[1] Yao et al., Reconstruction vs. Generation, 2025, https://arxiv.org/abs/2501.01423
    (uniform from 480 epochs on: section 5.4)
[2] Chen et al., Masked Autoencoders Are Effective Tokenizers (MAETok), 2025, https://arxiv.org/abs/2502.03444
"""

from typing import ClassVar

import torch
from torch import Tensor

from ldbench.core.discrete_diffusion import times_of_indices
from ldbench.core.distributed import draw_for_global_batch
from ldbench.core.interpolant import Interpolant
from ldbench.core.time_shift import Shift, resolve_shift, shift_times, validate_shift


class Uniform:
    """The uniform distribution."""

    revision: ClassVar[int] = 1

    def sample(
        self, num_images: int, *, step: int, num_numbers: int, rng: torch.Generator | None = None
    ) -> Tensor:  # (B,) float64
        """Times from `rng`, or torch's global RNG."""
        return draw_for_global_batch(lambda count: torch.rand(count, generator=rng, dtype=torch.float64), num_images)


class LogitNormal:
    """sigmoid(mean + std * normal) [0], shifted (see `core.time_shift`); uniform from the step `uniform_after` on [1].

    `shift`: below 1 moves times towards the noise, 1 leaves them unchanged; `dimension` is by the size of the latents.
    Raises ValueError for std and shift that are not above zero.
    """

    revision: ClassVar[int] = 1

    def __init__(self, *, mean: float, std: float, shift: Shift, uniform_after: int | None):
        if std <= 0:
            raise ValueError(f"A logit-normal distribution of times needs std > 0, got {std}.")
        validate_shift(shift)
        self.mean = mean
        self.std = std
        self.shift = shift
        self.uniform_after = uniform_after

    def sample(
        self, num_images: int, *, step: int, num_numbers: int, rng: torch.Generator | None = None
    ) -> Tensor:  # (B,) float64
        """Times from `rng`, or torch's global RNG."""
        if self.uniform_after is not None and step >= self.uniform_after:
            return Uniform().sample(num_images, step=step, num_numbers=num_numbers, rng=rng)
        normal = draw_for_global_batch(lambda count: torch.randn(count, generator=rng, dtype=torch.float64), num_images)
        return self.times(normal, num_numbers=num_numbers)

    def times(
        self,
        normal: Tensor,  # (B,) standard normal
        *,
        num_numbers: int,  # N C of a latent
    ) -> Tensor:  # (B,) float64
        """The times that standard normal numbers are mapped to."""
        t = (self.mean + self.std * normal.double()).sigmoid()
        return shift_times(t, resolve_shift(self.shift, num_numbers))


class NormalLogSNR:
    """Times at which log(alpha / sigma) is normal: MAETok's `lognormal` (of sigma / alpha) [2], on any interpolant.

    On Linear it is the logit-normal distribution. Raises ValueError for std not above zero.
    """

    revision: ClassVar[int] = 1

    def __init__(self, *, interpolant: Interpolant, mean: float, std: float):
        if std <= 0:
            raise ValueError(f"A normal distribution of log(alpha / sigma) needs std > 0, got {std}.")
        self.interpolant = interpolant
        self.mean = mean
        self.std = std

    def sample(
        self, num_images: int, *, step: int, num_numbers: int, rng: torch.Generator | None = None
    ) -> Tensor:  # (B,) float64
        """Times from `rng`, or torch's global RNG."""
        return self.times(
            draw_for_global_batch(lambda count: torch.randn(count, generator=rng, dtype=torch.float64), num_images)
        )

    def times(
        self,
        normal: Tensor,  # (B,) standard normal
    ) -> Tensor:  # (B,) float64
        """The times that standard normal numbers are mapped to."""
        return self.interpolant.time_at(self.mean + self.std * normal.double())


class Counted:
    """The uniform distribution of an interpolant's timesteps: t = 1 - (i + 1) / num_times for i = 0 ... num_times - 1.

    Raises ValueError for an interpolant whose time is continuous.
    """

    revision: ClassVar[int] = 1

    def __init__(self, *, interpolant: Interpolant):
        if interpolant.num_times is None:
            raise ValueError(
                f"times=counted needs discrete time, but {type(interpolant).__name__} is continuous. "
                "Choose times=uniform or logit_normal, or interpolant=discrete_linear or discrete_cosine."
            )
        self.num_times = interpolant.num_times

    def sample(
        self, num_images: int, *, step: int, num_numbers: int, rng: torch.Generator | None = None
    ) -> Tensor:  # (B,) float64
        """Times from `rng`, or torch's global RNG."""
        return times_of_indices(
            draw_for_global_batch(lambda count: torch.randint(self.num_times, (count,), generator=rng), num_images),
            self.num_times,
        )
