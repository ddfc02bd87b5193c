"""Posterior: an encoder's output for images, a diagonal Gaussian over the latent or a point."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ldbench.core.distributed import draw_for_global_batch


@dataclass(frozen=True)
class Posterior:
    """A diagonal Gaussian, or a point when `logvar` is None."""

    mean: Tensor  # (B, N, C)
    logvar: Tensor | None = None  # (B, N, C)

    def sample(
        self,
        rng: torch.Generator | None = None,
        *,
        eps: Tensor | None = None,  # (B, N, C), or anything that broadcasts to it
    ) -> Tensor:  # (B, N, C)
        """mean + std * eps, with eps passed or drawn from `rng` (None: torch's global stream); the mean of a point."""
        if self.logvar is None:
            return self.mean
        if eps is None:
            mean = self.mean
            eps = draw_for_global_batch(  # torch.randn with a generator cannot be compiled for varying shapes
                lambda count: mean.new_empty(count, *mean.shape[1:]).normal_(generator=rng), len(mean)
            )
        return self.mean + (0.5 * self.logvar).exp() * eps

    def kl(self) -> Tensor:  # (B,)
        """KL divergence to the standard normal in nats, summed over tokens and channels.

        Raises ValueError for a point, whose divergence is infinite.
        """
        mean, logvar = self.mean.float(), self.gaussian_logvar().float()
        return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(dim=(1, 2))

    def gaussian_logvar(self) -> Tensor:  # (B, N, C)
        """`logvar`. Raises ValueError where the posterior is a point."""
        if self.logvar is None:
            raise ValueError(
                "This posterior is a point and has no variance. Drop the KL term, or choose a variational tokenizer."
            )
        return self.logvar
