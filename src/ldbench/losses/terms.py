"""Pixel losses and KL divergences.

[0] Lee et al., Latent Diffusion Models with Masked AutoEncoders (LDMAE), 2025, https://arxiv.org/abs/2507.09984
[1] Kingma and Welling, Auto-Encoding Variational Bayes, 2014, https://arxiv.org/abs/1312.6114
"""

import math
from typing import ClassVar

from torch import Tensor

from ldbench.core.distributed import global_mean
from ldbench.core.tokenizer import Reconstruction
from ldbench.layers.embed import patchify
from ldbench.losses.base_term import BaseTerm


class PixelMSE(BaseTerm):
    """Mean squared error; with a mask, `visible_ratio` times that of visible patches plus the rest times that of hidden
    ones.

    Both means run over the whole batch. None: the mean over all pixels, with or without a mask. Raises ValueError
    unless 0 <= visible_ratio <= 1.
    """

    revision: ClassVar[int] = 1
    reconstructs: ClassVar[bool] = True

    def __init__(self, *, weight: float, start: int, warmup: int, visible_ratio: float | None):
        super().__init__(weight=weight, start=start, warmup=warmup)
        if visible_ratio is not None and not 0 <= visible_ratio <= 1:
            raise ValueError(f"visible_ratio must lie in [0, 1], got {visible_ratio}.")
        self.visible_ratio = visible_ratio

    def forward(
        self,
        images: Tensor,  # (B, 3, H, W)
        recon: Reconstruction,
        y: Tensor,  # (B,)
    ) -> Tensor:
        """The loss of a batch."""
        error = (recon.images.float() - images.float()).square()
        if recon.mask is None or self.visible_ratio is None:
            return error.mean()
        assert recon.patch_grid is not None, "a reconstruction with a mask has a patch grid"
        by_patch = patchify(error, recon.patch_grid).mean(dim=-1)  # (B, P)
        return self.visible_ratio * global_mean(by_patch[~recon.mask]) + (1 - self.visible_ratio) * global_mean(
            by_patch[recon.mask]
        )


class PixelL1(BaseTerm):
    """Mean absolute error over all pixels."""

    revision: ClassVar[int] = 1
    reconstructs: ClassVar[bool] = True

    def forward(
        self,
        images: Tensor,  # (B, 3, H, W)
        recon: Reconstruction,
        y: Tensor,  # (B,)
    ) -> Tensor:
        """The loss of a batch."""
        return (recon.images.float() - images.float()).abs().mean()


class KL(BaseTerm):
    """The KL divergence of the posterior from the standard normal, in nats per kept token [1]."""

    revision: ClassVar[int] = 1

    def forward(
        self,
        images: Tensor,  # (B, 3, H, W)
        recon: Reconstruction,
        y: Tensor,  # (B,)
    ) -> Tensor:
        """The loss of a batch."""
        return recon.posterior.kl().mean() / recon.posterior.mean.shape[1]


class FreeMeanKL(BaseTerm):
    """The KL divergence of the posterior from a normal of the same mean and standard deviation `std`, in nats per kept
    token.

    It constrains only the variance, not the mean: `std=1` is the paper's variance condition [0], the official script
    has 1e-3. Raises ValueError unless std > 0.
    """

    revision: ClassVar[int] = 1

    def __init__(self, *, weight: float, start: int, warmup: int, std: float):
        super().__init__(weight=weight, start=start, warmup=warmup)
        if std <= 0:
            raise ValueError(f"std must be positive, got {std}.")
        self.std = std

    def forward(
        self,
        images: Tensor,  # (B, 3, H, W)
        recon: Reconstruction,
        y: Tensor,  # (B,)
    ) -> Tensor:
        """The loss of a batch."""
        logvar = recon.posterior.gaussian_logvar().float()
        relative = logvar - 2 * math.log(self.std)
        divergence = 0.5 * (relative.exp() - 1 - relative).sum(dim=2)  # (B, N_kept)
        return divergence.mean()
