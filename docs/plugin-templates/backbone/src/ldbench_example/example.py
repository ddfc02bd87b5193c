"""A generator's network that mixes tokens and channels by linear layers in turn.

[0] Tolstikhin et al., MLP-Mixer: An all-MLP Architecture for Vision, 2021, https://arxiv.org/abs/2105.01601
"""

from typing import ClassVar

from torch import Tensor, nn

from ldbench.core.backbone import Backbone
from ldbench.core.latent import LatentSpec
from ldbench.layers.condition import Condition


class Block(nn.Module):
    """Tokens, then channels, are mixed [0] under a scale and a shift by the condition."""

    def __init__(self, *, num_tokens: int, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.tokens = nn.Linear(num_tokens, num_tokens)
        self.channels = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(
        self,
        x: Tensor,  # (B, N, D)
        condition: Tensor,  # (B, D)
    ) -> Tensor:  # (B, N, D)
        """The tokens after the block."""
        scale, shift = self.modulation(condition)[:, None].chunk(2, dim=-1)  # (B, 1, D) each
        modulated = (1 + scale) * self.norm(x) + shift
        x = x + self.tokens(modulated.transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm(x))


class Example(Backbone):
    """`depth` blocks of `width` channels on the tokens of a latent. `class_std`: initial deviation of the labels."""

    revision: ClassVar[int] = 1  # raised when a change of code changes the numbers

    def __init__(
        self,
        *,
        latent: LatentSpec,
        num_classes: int,
        has_null_class: bool,
        learned_variance: bool,
        width: int,
        depth: int,
        class_std: float,
    ):
        super().__init__(
            latent=latent, num_classes=num_classes, has_null_class=has_null_class, learned_variance=learned_variance
        )
        self.condition = Condition(width=width, num_labels=self.num_labels, class_std=class_std)
        self.embed = nn.Linear(latent.channels, width)
        self.layers = nn.ModuleList(Block(num_tokens=latent.num_tokens, width=width) for _ in range(depth))
        self.head = nn.Linear(width, self.out_channels)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(
        self,
        x: Tensor,  # (B, N, C)
        t: Tensor,  # (B,)
        y: Tensor,  # (B,)
        *,
        r: Tensor | None = None,
    ) -> Tensor:  # (B, N, C), or (B, N, 2C) with a learned variance
        """The prediction for each latent. Raises ValueError for other shapes, and for a second time."""
        self.validate_inputs(x, t, y, r)
        condition = self.condition(t, y)
        x = self.embed(x)
        for layer in self.layers:
            x = layer(x, condition)
        return self.head(x)
