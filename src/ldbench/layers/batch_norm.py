"""Batch normalisation by the statistics of a whole batch, however many processes share it.

[0] Ioffe and Szegedy, Batch Normalization, 2015, https://arxiv.org/abs/1502.03167
"""

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ldbench.core import distributed


class SharedBatchNorm(_BatchNorm):
    """Batch normalisation [0] of (B, C, ...), with the keys of torch's; in one process it is torch's to the last bit.

    Several processes take the mean and the variance of all their images, with gradients through both, on any device.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"Batch normalisation takes (B, C, ...), got {tuple(input.shape)}.")

    def forward(
        self,
        input: Tensor,  # (B, C, ...)
    ) -> Tensor:  # (B, C, ...)
        if not self.training or distributed.rank_info().world == 1:
            return super().forward(input)
        self._check_input_dim(input)
        x = input.float()
        places = [dim for dim in range(x.ndim) if dim != 1]
        count = distributed.rank_info().world * x.numel() // x.shape[1]  # values of a channel
        mean = distributed.sum_over_ranks(x.sum(dim=places)) / count  # (C,)
        centred = x - across(mean, x)
        variance = (
            distributed.sum_over_ranks(centred.square().sum(dim=places)) / count
        )  # (C,) around the mean of all: no difference of large sums
        self.follow(mean.detach(), variance.detach() * count / (count - 1))
        scaled = centred * across(torch.rsqrt(variance + self.eps), x)
        if self.affine:
            scaled = scaled * across(self.weight, x) + across(self.bias, x)
        return scaled.to(input.dtype)

    @torch.no_grad()
    def follow(
        self,
        mean: Tensor,  # (C,)
        variance: Tensor,  # (C,) unbiased
    ) -> None:
        """Moves the running statistics, as torch does."""
        if not self.track_running_stats:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


def across(
    values: Tensor,  # (C,)
    x: Tensor,  # (B, C, ...)
) -> Tensor:  # (1, C, 1, ...)
    """Values of channels, to be combined with x."""
    return values.reshape(1, -1, *[1] * (x.ndim - 2))
