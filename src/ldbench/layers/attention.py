"""Multi-head self-attention over a sequence."""

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from ldbench.layers.rotary import rotate


class Attention(nn.Module):
    """Softmax attention with a joint qkv projection; scale head_dim^-0.5, biases everywhere.

    Raises ValueError when `num_heads` does not divide `width`.
    """

    def __init__(self, *, width: int, num_heads: int):
        super().__init__()
        if width % num_heads:
            divisors = [heads for heads in range(1, width + 1) if width % heads == 0]
            raise ValueError(f"num_heads {num_heads} does not divide width {width}. Choose one of {divisors}.")
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(
        self,
        x: Tensor,  # (B, T, D)
        turn: tuple[Tensor, Tensor] | None = None,  # cos and sin of rotary positions, (heads, T, head_dim / 2) each
    ) -> Tensor:  # (B, T, D)
        q, k, v = rearrange(self.qkv(x), "b t (three h d) -> three b h t d", three=3, h=self.num_heads)
        if turn is not None:
            q, k = rotate(q, *turn), rotate(k, *turn)
        attended = F.scaled_dot_product_attention(q, k, v)
        return self.proj(rearrange(attended, "b h t d -> b t (h d)"))
