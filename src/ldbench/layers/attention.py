"""Multi-head self-attention over a sequence."""

from collections.abc import Callable

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from ldbench.layers.rotary import rotate


class Attention(nn.Module):
    """Softmax attention with a joint qkv projection; scale head_dim^-0.5, with biases.

    `head_norm`: builds the normalization of queries and keys from the width of a head; None: no normalization.
    Raises ValueError if `num_heads` does not divide `width`.
    """

    def __init__(self, *, width: int, num_heads: int, head_norm: Callable[[int], nn.Module] | None = None):
        super().__init__()
        if width % num_heads:
            divisors = [heads for heads in range(1, width + 1) if width % heads == 0]
            raise ValueError(f"num_heads {num_heads} does not divide width {width}. Choose one of {divisors}.")
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.q_norm = nn.Identity() if head_norm is None else head_norm(width // num_heads)
        self.k_norm = nn.Identity() if head_norm is None else head_norm(width // num_heads)

    def forward(
        self,
        x: Tensor,  # (B, T, D)
        rotation: tuple[Tensor, Tensor] | None = None,  # cos and sin, (heads or 1, T, head_dim / 2) each
    ) -> Tensor:  # (B, T, D)
        """The attended tokens; `rotation`: rotary positions."""
        q, k, v = rearrange(self.qkv(x), "b t (three h d) -> three b h t d", three=3, h=self.num_heads)
        q, k = self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype)
        if rotation is not None:
            q, k = rotate(q, *rotation), rotate(k, *rotation)
        attended = F.scaled_dot_product_attention(q, k, v)
        return self.proj(rearrange(attended, "b h t d -> b t (h d)"))
