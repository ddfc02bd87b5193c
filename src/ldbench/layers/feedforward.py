"""The position-wise network of a transformer block."""

from torch import Tensor, nn


class MLP(nn.Module):
    """Linear, erf-GELU, linear."""

    def __init__(self, *, width: int, hidden: int, out: int | None = None):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, width if out is None else out)

    def forward(
        self,
        x: Tensor,  # (..., D)
    ) -> Tensor:  # (..., out)
        return self.fc2(self.act(self.fc1(x)))
