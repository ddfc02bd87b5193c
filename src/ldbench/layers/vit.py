"""The plain vision transformer: pre-norm blocks and their stack.

[0] Dosovitskiy et al., An Image is Worth 16x16 Words, 2021, https://arxiv.org/abs/2010.11929
[1] Touvron et al., Going Deeper with Image Transformers, 2021, https://arxiv.org/abs/2103.17239
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ldbench.layers.attention import Attention
from ldbench.layers.feedforward import MLP


class Block(nn.Module):
    """Attention and MLP, each on a normalized input and added to it; `eps`: of the LayerNorms.

    `layer_scale`: the initial value of LayerScale on both [1]; None: no LayerScale.
    """

    def __init__(
        self, *, width: int, num_heads: int, mlp_ratio: float, layer_scale: float | None = None, eps: float = 1e-6
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width=width, num_heads=num_heads)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = MLP(width=width, hidden=int(width * mlp_ratio))
        self.scale1 = nn.Identity() if layer_scale is None else LayerScale(width=width, start=layer_scale)
        self.scale2 = nn.Identity() if layer_scale is None else LayerScale(width=width, start=layer_scale)

    def forward(
        self,
        x: Tensor,  # (B, T, D)
        rotation: tuple[Tensor, Tensor] | None = None,  # cos and sin of rotary positions
    ) -> Tensor:  # (B, T, D)
        """The block's output."""
        x = x + self.scale1(self.attn(self.norm1(x), rotation))
        return x + self.scale2(self.mlp(self.norm2(x)))


class LayerScale(nn.Module):
    """A learned factor per feature [1]."""

    def __init__(self, *, width: int, start: float):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), float(start)))

    def forward(
        self,
        x: Tensor,  # (..., D)
    ) -> Tensor:  # (..., D)
        """The scaled features."""
        return x * self.gamma


class Transformer(nn.Module):
    """`depth` blocks and a final LayerNorm."""

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        layer_scale: float | None = None,
        eps: float = 1e-6,
    ):
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(width=width, num_heads=num_heads, mlp_ratio=mlp_ratio, layer_scale=layer_scale, eps=eps)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(
        self,
        x: Tensor,  # (B, T, D)
        rotations: Sequence[tuple[Tensor, Tensor]] | None = None,  # rotary positions for each block
    ) -> Tensor:  # (B, T, D)
        """The normalized output tokens."""
        for layer, block in enumerate(self.blocks):
            x = block(x, None if rotations is None else rotations[layer])
        return self.norm(x)


def init_transformer(module: nn.Module) -> None:
    """MAE's initialization of one module, for `nn.Module.apply`: Xavier-uniform linear layers with zero biases."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def init_timm(module: nn.Module, std: float = 0.02) -> None:
    """timm's initialization of one module, for `nn.Module.apply`: linear layers from a truncated normal, with zero
    biases.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=std)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
