"""Feature normalizations, computed in float32 and returned in the input's dtype.

[0] Zhang and Sennrich, Root Mean Square Layer Normalization, 2019, https://arxiv.org/abs/1910.07467
"""

from typing import Literal

import torch
from torch import Tensor, nn

Norm = Literal["layer", "rms"]


class RMSNorm(nn.Module):
    """Features divided by their root mean square, times learned weights (eq. 4 of [0])."""

    def __init__(self, width: int, *, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(
        self,
        x: Tensor,  # (..., D)
    ) -> Tensor:  # (..., D)
        """The normalized features."""
        single = x.float()
        normed = single * torch.rsqrt(single.square().mean(dim=-1, keepdim=True) + self.eps)
        return (normed * self.weight).to(x.dtype)


def token_norm(kind: Norm, width: int) -> nn.Module:
    """The normalization of tokens before a modulation: LayerNorm without parameters, or RMSNorm; eps 1e-6.

    Raises ValueError for another kind.
    """
    if kind not in ("layer", "rms"):
        raise ValueError(f"Unknown norm {kind!r}. Choose layer or rms.")
    return RMSNorm(width, eps=1e-6) if kind == "rms" else nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)


def head_norm(kind: Norm, width: int) -> nn.Module:
    """The normalization of queries and keys: LayerNorm with parameters and eps 1e-5, or RMSNorm with eps 1e-6."""
    return RMSNorm(width, eps=1e-6) if kind == "rms" else nn.LayerNorm(width, eps=1e-5)
