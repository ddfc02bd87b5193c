"""The position-wise networks of transformer blocks.

[0] Shazeer, GLU Variants Improve Transformer, 2020, https://arxiv.org/abs/2002.05202
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MLP(nn.Module):
    """Linear, GELU, linear; the GELU is exact or approximated by tanh."""

    def __init__(
        self, *, width: int, hidden: int, out: int | None = None, approximate: Literal["none", "tanh"] = "none"
    ):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU(approximate=approximate)
        self.fc2 = nn.Linear(hidden, width if out is None else out)

    def forward(
        self,
        x: Tensor,  # (..., D)
    ) -> Tensor:  # (..., out)
        """The output features."""
        return self.fc2(self.act(self.fc1(x)))


class SwiGLU(nn.Module):
    """SwiGLU (eq. 6 of [0], with biases): linear to two halves, the second times the SiLU of the first, linear.

    `fc1` holds both in this order.
    """

    def __init__(self, *, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, 2 * hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(
        self,
        x: Tensor,  # (..., D)
    ) -> Tensor:  # (..., D)
        """The output features."""
        if torch.compiler.is_compiling():  # two products: concatenating the gradients of one would be slow
            weights, biases = self.fc1.weight.chunk(2), self.fc1.bias.chunk(2)
            gate, value = (F.linear(x, weight, bias) for weight, bias in zip(weights, biases, strict=True))
        else:
            gate, value = self.fc1(x).chunk(2, dim=-1)
        return self.fc2(F.silu(gate) * value)
