"""DiscreteDiffusion: diffusion in steps, as in DDPM. Its index counts from the data (0) to the noise.

[0] Ho, Jain and Abbeel, Denoising Diffusion Probabilistic Models, 2020, https://arxiv.org/abs/2006.11239
[1] Nichol and Dhariwal, Improved Denoising Diffusion Probabilistic Models, 2021, https://arxiv.org/abs/2102.09672
"""

import torch
from torch import Tensor

from ldbench.core.interpolant import expand_like

DECIMALS = 3  # of an index: a time may be of single precision


def time_of_index(index: int, num_times: int) -> float:
    """The time (0 noise, 1 data) of an index (0 almost clean, num_times - 1 noise): 1 - (index + 1) / num_times."""
    return 1 - (index + 1) / num_times


def times_of_indices(
    index: Tensor,  # (B,) integers
    num_times: int,
) -> Tensor:  # (B,) float64
    """The times (0 noise, 1 data) of indices."""
    return 1 - (index.to("cpu", torch.float64) + 1) / num_times


def fractional_index(
    t: Tensor,  # (B,)
    num_times: int,
) -> Tensor:  # (B,) float64
    """The index of a time, fractional between two indices, not below 0: the input of networks with discrete time."""
    return (num_times * (1 - t.detach().to("cpu", torch.float64)) - 1).round(decimals=DECIMALS).clamp(min=0)


def index_at(
    t: Tensor,  # (B,)
    num_times: int,
) -> Tensor:  # (B,) int64
    """The index i whose interval [1 - (i + 1) / n, 1 - i / n) contains t. Uniform times give uniform indices."""
    return fractional_index(t, num_times).ceil().long().clamp(0, num_times - 1)


class DiscreteDiffusion:
    """A variance-preserving process from data to noise in steps, and the Gaussian posteriors of its reverse steps.

    All tables are (S,) float64 for S steps, and an index is (B,) int64 in [0, S).
    Raises ValueError for `alphas_cumprod` that do not decrease.
    """

    def __init__(
        self,
        alphas_cumprod: Tensor,  # (S,) the squared coefficient of the data after each step, decreasing
    ):
        self.alphas_cumprod = alphas_cumprod.to("cpu", torch.float64)
        self.alphas_cumprod_prev = torch.cat([torch.ones(1, dtype=torch.float64), self.alphas_cumprod[:-1]])
        if (
            len(alphas_cumprod) < 1
            or not (self.alphas_cumprod < self.alphas_cumprod_prev).all()
            or self.alphas_cumprod[-1] < 0
        ):
            raise ValueError(
                f"alphas_cumprod must decrease at every diffusion step and stay above zero, got {alphas_cumprod}."
            )
        retained = self.alphas_cumprod / self.alphas_cumprod_prev
        self.betas = 1 - retained
        noise, noise_prev = 1 - self.alphas_cumprod, 1 - self.alphas_cumprod_prev
        self.posterior_variance = self.betas * noise_prev / noise  # eq. 7 of [0]
        first = self.posterior_variance[1:2] if len(retained) > 1 else self.betas[:1]
        # the variance is 0 at index 0: its logarithm is replaced by the next one's
        self.posterior_logvar = torch.cat([first, self.posterior_variance[1:]]).log()
        self.data_coefficient = self.betas * self.alphas_cumprod_prev.sqrt() / noise
        self.x_coefficient = noise_prev * retained.sqrt() / noise

    def __len__(self) -> int:
        return len(self.betas)

    def posterior_mean(
        self,
        x: Tensor,  # (B, N, C)
        data: Tensor,  # (B, N, C)
        index: Tensor,  # (B,)
    ) -> Tensor:  # (B, N, C)
        """The posterior mean of x one step nearer to the data: eq. 7 of [0]."""
        index = index.cpu()
        return expand_like(self.data_coefficient[index], x) * data + expand_like(self.x_coefficient[index], x) * x

    def logvar(
        self,
        index: Tensor,  # (B,)
        fraction: Tensor,  # (B, ...), 0 for the posterior's variance, 1 for beta
    ) -> Tensor:  # (B, ...)
        """The log-variance of a reverse step, interpolated between its bounds: eq. 15 of [1]."""
        index = index.cpu()
        low, high = self.posterior_logvar[index], self.betas[index].log()
        return fraction * expand_like(high, fraction) + (1 - fraction) * expand_like(low, fraction)
