"""Decoders with one learned query per position of a grid: of plain blocks, or of blocks that modulate the latent tokens
by the latents.

[0] Chen et al., Masked Autoencoders Are Effective Tokenizers for Diffusion Models (MAETok), 2025,
https://arxiv.org/abs/2502.03444
[1] Zheng et al., MoVQ: Modulating Quantized Vectors for High-Fidelity Image Generation, 2022,
https://arxiv.org/abs/2209.09002
[2] Chen et al., SoftVQ-VAE: Efficient 1-Dimensional Continuous Tokenizer, 2024, https://arxiv.org/abs/2412.10958
"""

from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ldbench.layers.attention import Attention
from ldbench.layers.feedforward import MLP
from ldbench.layers.masking import gather_tokens
from ldbench.layers.position import resize_table
from ldbench.layers.rotary import MixedRotary
from ldbench.layers.vit import Transformer, init_timm

ModulationStart = Literal["zero", "identity"]


class QueryDecoder(nn.Module):
    """Transforms one learned query per position together with the latent tokens, and returns the queries' outputs.

    Positions are encoded by mixed rotary positions (`rope_theta`), or by a learned table for `grid` if that is None.
    `linear_std`, `token_std`: the initial standard deviations of linear layers, and of queries and tables (official:
    0.02 both). `modulation_start`: `zero` (official) hides the latents in the first step, so that the encoder has no
    gradient in it; `identity` does not.
    """

    def __init__(
        self,
        *,
        num_tokens: int,
        latent_channels: int,
        grid: tuple[int, int],
        width: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        rope_theta: float | None,
        class_token: bool,
        modulation_start: ModulationStart,
        linear_std: float,
        token_std: float,
    ):
        super().__init__()
        if modulation_start not in ("zero", "identity"):
            raise ValueError(f"Unknown modulation_start {modulation_start!r}. Choose zero or identity.")
        for name, value in (
            ("width", width),
            ("depth", depth),
            ("num_heads", num_heads),
            ("linear_std", linear_std),
            ("token_std", token_std),
        ):
            if value <= 0:
                raise ValueError(f"{name} must be positive, got {value}.")
        self.grid = grid
        self.from_latent = nn.Linear(latent_channels, width)
        self.query = nn.Parameter(torch.zeros(1, 1, width))
        self.class_token = nn.Parameter(torch.zeros(1, 1, width)) if class_token else None
        self.latent_positions = nn.Parameter(torch.zeros(1, num_tokens, width))
        self.positions = (
            nn.Parameter(torch.zeros(1, class_token + grid[0] * grid[1], width)) if rope_theta is None else None
        )
        blocks = [
            ModulatedBlock(width=width, num_heads=num_heads, mlp_ratio=mlp_ratio, latent_channels=latent_channels)
            for _ in range(depth)
        ]
        self.blocks = nn.ModuleList(blocks)
        self.rotary = (
            None
            if rope_theta is None
            else MixedRotary(depth=depth, num_heads=num_heads, head_dim=width // num_heads, theta=rope_theta)
        )
        self.blocks.apply(partial(init_timm, std=linear_std))
        nn.init.normal_(self.query, std=token_std)
        nn.init.trunc_normal_(self.latent_positions, std=token_std)
        if self.class_token is not None:
            nn.init.normal_(self.class_token, std=1e-6)
        if self.positions is not None:
            nn.init.trunc_normal_(self.positions, std=token_std)
        for block in blocks:
            block.init_modulation(modulation_start)

    def forward(
        self,
        z: Tensor,  # (B, K, C)
        *,
        kept: Tensor | None = None,  # (B, K): the indices of these among the N tokens; None: all
    ) -> Tensor:  # (B, [1 +] P, D): the class token if there is one, then the positions
        """The outputs of the queries."""
        num_positions = self.grid[0] * self.grid[1]
        queries = self.query.expand(len(z), num_positions, -1)
        if self.class_token is not None:
            queries = torch.cat([self.class_token.expand(len(z), -1, -1), queries], dim=1)
        if self.positions is not None:
            queries = queries + self.positions
        positions: Tensor = self.latent_positions
        if kept is not None:
            positions = gather_tokens(positions.expand(len(z), -1, -1), kept)
        x = torch.cat([queries, (self.from_latent(z) + positions).to(queries.dtype)], dim=1)
        num_queries = queries.shape[1]
        rotations = (
            [None] * len(self.blocks)
            if self.rotary is None
            else self.rotary(self.grid, before=num_queries - num_positions, after=z.shape[1])
        )
        for block, rotation in zip(self.blocks, rotations, strict=True):
            x = block(x, z, rotation)
        return plain_layer_norm(x[:, :num_queries])

    def resize(self, grid: tuple[int, int]) -> None:
        """Changes the grid of the queries; a learned table is interpolated."""
        if self.positions is not None:
            table = resize_table(
                self.positions.data, self.grid, grid, prefix=self.positions.shape[1] - self.grid[0] * self.grid[1]
            )
            self.positions = nn.Parameter(table, requires_grad=self.positions.requires_grad)
        self.grid = grid


class PlainQueryDecoder(nn.Module):
    """Transforms one learned query per position, after a class token, together with the latent tokens, by plain blocks
    with LayerScale, and returns the normalized outputs of the queries [2].
    """

    def __init__(
        self,
        *,
        num_tokens: int,
        latent_channels: int,
        grid: tuple[int, int],
        width: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        layer_scale: float | None,
        linear_std: float,
        token_std: float,
    ):
        super().__init__()
        self.grid = grid
        self.from_latent = nn.Linear(latent_channels, width)
        self.query = nn.Parameter(torch.zeros(1, 1, width))
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, 1 + grid[0] * grid[1], width))
        self.latent_positions = nn.Parameter(torch.zeros(1, num_tokens, width))
        self.transformer = Transformer(
            width=width, depth=depth, num_heads=num_heads, mlp_ratio=mlp_ratio, layer_scale=layer_scale
        )
        self.transformer.apply(partial(init_timm, std=linear_std))
        nn.init.normal_(self.class_token, std=1e-6)
        nn.init.normal_(self.query, std=token_std)
        for table in (self.positions, self.latent_positions):
            nn.init.trunc_normal_(table, std=token_std)

    def forward(
        self,
        z: Tensor,  # (B, N, C)
    ) -> Tensor:  # (B, P, D)
        """The outputs of the queries."""
        num_positions = self.grid[0] * self.grid[1]
        queries = torch.cat([self.class_token, self.query.expand(-1, num_positions, -1)], dim=1) + self.positions
        latents = self.from_latent(z) + self.latent_positions
        x = torch.cat([queries.expand(len(z), -1, -1).to(latents.dtype), latents], dim=1)
        return self.transformer(x)[:, 1 : 1 + num_positions]

    def resize(self, grid: tuple[int, int]) -> None:
        """Changes the grid of the queries; the table is interpolated."""
        table = resize_table(self.positions.data, self.grid, grid, prefix=1)
        self.positions = nn.Parameter(table, requires_grad=self.positions.requires_grad)
        self.grid = grid


class ModulatedBlock(nn.Module):
    """A pre-norm block in which the latent tokens, the last of the sequence, are scaled and shifted by linear functions
    of the latents (eq. 5 of [1]).
    """

    def __init__(self, *, width: int, num_heads: int, mlp_ratio: float, latent_channels: int):
        super().__init__()
        self.attn = Attention(width=width, num_heads=num_heads)
        self.mlp = MLP(width=width, hidden=int(width * mlp_ratio))
        self.modulation = nn.Linear(latent_channels, 4 * width)

    def init_modulation(self, start: ModulationStart) -> None:
        """Sets the modulation to scale 0 or 1, shift 0."""
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        if start == "identity":
            for scale in self.modulation.bias.data.chunk(4)[1::2]:
                scale.fill_(1.0)

    def forward(
        self,
        x: Tensor,  # (B, T, D), the latents last
        z: Tensor,  # (B, K, C)
        rotation: tuple[Tensor, Tensor] | None,
    ) -> Tensor:  # (B, T, D)
        """The block's output."""
        shift_attn, scale_attn, shift_mlp, scale_mlp = self.modulation(F.silu(z)).chunk(4, dim=-1)
        x = x + self.attn(modulate(x, scale_attn, shift_attn), rotation)
        return x + self.mlp(modulate(x, scale_mlp, shift_mlp))


def modulate(
    x: Tensor,  # (B, T, D)
    scale: Tensor,  # (B, K, D)
    shift: Tensor,  # (B, K, D)
) -> Tensor:  # (B, T, D)
    """Normalized tokens, the last K of them times `scale` (not 1 + scale) plus `shift`."""
    others = x.shape[1] - scale.shape[1]
    x = plain_layer_norm(x)
    return torch.cat([x[:, :others], x[:, others:] * scale + shift], dim=1)


def plain_layer_norm(x: Tensor) -> Tensor:
    """LayerNorm without parameters, eps 1e-6."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)
