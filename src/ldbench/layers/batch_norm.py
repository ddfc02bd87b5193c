"""Batch normalization with the statistics of the global batch over all processes.

[0] Ioffe and Szegedy, Batch Normalization, 2015, https://arxiv.org/abs/1502.03167
"""

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ldbench.core import distributed


class SharedBatchNorm(_BatchNorm):
    """Batch normalization [0] of (B, C, ...), with the state-dict keys of torch's; bit-identical to it in one process.

    Several processes use the mean and the variance of all their images, with gradients through both, on any device.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"Batch normalization takes (B, C, ...), got {tuple(input.shape)}.")

    def forward(
        self,
        input: Tensor,  # (B, C, ...)
    ) -> Tensor:  # (B, C, ...)
        """The normalized input."""
        if not self.training or distributed.rank_info().world == 1:
            return super().forward(input)
        self._check_input_dim(input)
        x = input.float()
        dims = [dim for dim in range(x.ndim) if dim != 1]
        count = distributed.rank_info().world * x.numel() // x.shape[1]  # values per channel
        mean = distributed.sum_over_ranks(x.sum(dim=dims)) / count  # (C,)
        centered = x - per_channel(mean, x)
        # Centered first: no difference of large sums.
        variance = distributed.sum_over_ranks(centered.square().sum(dim=dims)) / count  # (C,)
        self.update_running_stats(mean.detach(), variance.detach() * count / (count - 1))
        scaled = centered * per_channel(torch.rsqrt(variance + self.eps), x)
        if self.affine:
            scaled = scaled * per_channel(self.weight, x) + per_channel(self.bias, x)
        return scaled.to(input.dtype)

    @torch.no_grad()
    def update_running_stats(
        self,
        mean: Tensor,  # (C,)
        variance: Tensor,  # (C,) unbiased
    ) -> None:
        """Updates the running statistics, as torch does."""
        if not self.track_running_stats:
            return
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        self.num_batches_tracked.add_(1)
        weight = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(variance, weight)


def per_channel(
    values: Tensor,  # (C,)
    x: Tensor,  # (B, C, ...)
) -> Tensor:  # (1, C, 1, ...)
    """Values per channel, broadcastable to x."""
    return values.reshape(1, -1, *[1] * (x.ndim - 2))
