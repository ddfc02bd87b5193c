"""The plain vision transformer: pre-norm blocks and a stack of them.

[0] Dosovitskiy et al., An Image is Worth 16x16 Words, 2021, https://arxiv.org/abs/2010.11929
"""

from torch import Tensor, nn

from ldbench.layers.attention import Attention
from ldbench.layers.feedforward import MLP


class Block(nn.Module):
    """Attention and MLP, each on a normalised input and added to it; LayerNorm with eps 1e-6."""

    def __init__(self, *, width: int, num_heads: int, mlp_ratio: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width=width, num_heads=num_heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = MLP(width=width, hidden=int(width * mlp_ratio))

    def forward(
        self,
        x: Tensor,  # (B, T, D)
    ) -> Tensor:  # (B, T, D)
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """`depth` blocks and a final LayerNorm."""

    def __init__(self, *, width: int, depth: int, num_heads: int, mlp_ratio: float):
        super().__init__()
        self.blocks = nn.ModuleList(Block(width=width, num_heads=num_heads, mlp_ratio=mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(
        self,
        x: Tensor,  # (B, T, D)
    ) -> Tensor:  # (B, T, D)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def init_transformer(module: nn.Module) -> None:
    """MAE's initialisation of one module, for `nn.Module.apply`: Xavier-uniform linear layers with zero biases."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
