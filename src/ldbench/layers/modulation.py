"""A transformer with blocks modulated by a condition: adaptive LayerNorm, initialized to zero (adaLN-Zero).

[0] Peebles and Xie, Scalable Diffusion Models with Transformers, 2023, https://arxiv.org/abs/2212.09748
[1] Yao et al., Reconstruction vs. Generation: Taming Optimization Dilemma in Latent Diffusion Models, 2025,
https://arxiv.org/abs/2501.01423
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ldbench.layers.attention import Attention
from ldbench.layers.feedforward import MLP, SwiGLU
from ldbench.layers.norm import Norm, head_norm, token_norm
from ldbench.layers.vit import init_transformer

Feedforward = Literal["gelu", "swiglu"]
AfterBlock = Callable[[int, Tensor], None]
OnInner = Callable[[Tensor], None]  # of an inner head's output, (B, T, out_features)


class ConditionedTransformer(nn.Module):
    """`depth` modulated blocks and a modulated linear head (section 3.2 of [0]).

    `norm`, `feedforward`, `qk_norm` and `shifts` are as in ConditionedBlock. With `checkpointing`, the activations
    inside a block are recomputed in the backward pass. `inner_block`: after which a second head reads the tokens. The
    heads and all modulations are initialized to zero, and so is the output. Raises ValueError for numbers that are not
    positive, and for unknown choices.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        out_features: int,
        norm: Norm,
        feedforward: Feedforward,
        qk_norm: bool,
        shifts: bool,
        checkpointing: bool,
        inner_block: int | None = None,
    ):
        super().__init__()
        self.checkpointing = checkpointing
        self.blocks = conditioned_blocks(
            width=width,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            norm=norm,
            feedforward=feedforward,
            qk_norm=qk_norm,
            shifts=shifts,
        )
        self.head = ConditionedHead(width=width, out_features=out_features, norm=norm)
        self.inner_block = inner_block
        self.inner_head = inner_head(inner_block, depth, width=width, out_features=out_features, norm=norm)
        init_conditioned(self)

    def forward(
        self,
        x: Tensor,  # (B, T, D)
        condition: Tensor,  # (B, D), or (B, T, D) of each token
        rotation: tuple[Tensor, Tensor] | None = None,  # cos and sin of rotary positions, (1, T, head_dim / 2) each
        *,
        after_block: AfterBlock | None = None,
        on_inner: OnInner | None = None,
    ) -> Tensor:  # (B, T, out_features)
        """The output tokens; `on_inner` is called with those of the inner head."""
        condition = F.silu(condition)
        x = run_blocks(
            self.blocks,
            x,
            condition,
            rotation,
            checkpointing=self.checkpointing,
            after_block=read_inner(self.inner_block, self.inner_head, condition, after_block, on_inner),
        )
        return self.head(x, condition)


def inner_head(
    inner_block: int | None, depth: int, *, width: int, out_features: int, norm: Norm
) -> "ConditionedHead | None":
    """A head after one of `depth` blocks, or None. Raises ValueError for a block that is not before the last."""
    if inner_block is None:
        return None
    if not 1 <= inner_block < depth:
        raise ValueError(f"inner_block must be 1 to {depth - 1}, before the last of {depth} blocks, got {inner_block}.")
    return ConditionedHead(width=width, out_features=out_features, norm=norm)


def read_inner(
    inner_block: int | None,
    head: nn.Module | None,
    condition: Tensor,  # (B, D), after its activation
    after_block: AfterBlock | None,
    on_inner: OnInner | None,
) -> AfterBlock | None:
    """What is called after each block: `after_block`, and at the inner one `on_inner` with the output of its head."""
    if on_inner is None or head is None:
        return after_block

    def both(block: int, tokens: Tensor) -> None:
        if after_block is not None:
            after_block(block, tokens)
        if block == inner_block:
            on_inner(head(tokens, condition))

    return both


def conditioned_blocks(
    *,
    width: int,
    depth: int,
    num_heads: int,
    mlp_ratio: float,
    norm: Norm,
    feedforward: Feedforward,
    qk_norm: bool,
    shifts: bool,
) -> nn.ModuleList:
    """`depth` modulated blocks. Raises ValueError for numbers that are not positive, and for unknown choices."""
    for name, value in {"width": width, "depth": depth, "num_heads": num_heads, "mlp_ratio": mlp_ratio}.items():
        if value <= 0:
            raise ValueError(f"{name} must be positive, got {value}.")
    return nn.ModuleList(
        ConditionedBlock(
            width=width,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            norm=norm,
            feedforward=feedforward,
            qk_norm=qk_norm,
            shifts=shifts,
        )
        for _ in range(depth)
    )


def run_blocks(
    blocks: nn.ModuleList,
    x: Tensor,  # (B, T, D)
    condition: Tensor,  # (B, D) or (B, T, D), after its activation
    rotation: tuple[Tensor, Tensor] | None,  # cos and sin of rotary positions, (1, T, head_dim / 2) each
    *,
    checkpointing: bool,  # whether the activations inside a block are recomputed in the backward pass
    after_block: AfterBlock | None = None,  # called with the number of each block, from 1, and its output
) -> Tensor:  # (B, T, D)
    """The tokens after all blocks."""
    for number, block in enumerate(blocks, start=1):
        recompute = checkpointing and x.requires_grad
        x = (
            checkpoint(block, x, condition, rotation, use_reentrant=False)
            if recompute
            else block(x, condition, rotation)
        )
        if after_block is not None:
            after_block(number, x)
    return x


def init_conditioned(module: nn.Module) -> None:
    """Initializes modulated blocks and heads: as in transformers, and all modulations and outputs to zero."""
    module.apply(init_transformer)
    for part in module.modules():
        if isinstance(part, ConditionedBlock | ConditionedHead):
            nn.init.zeros_(part.modulation.weight)
        if isinstance(part, ConditionedHead):
            nn.init.zeros_(part.linear.weight)


class ConditionedBlock(nn.Module):
    """Attention and a feedforward network, each on a normalized and modulated input, gated and added to it.

    `norm`: `layer` (without parameters) or `rms`. `qk_norm`: whether queries and keys are also normalized.
    `feedforward`: `gelu` (tanh; with `mlp_ratio` * width hidden units) or `swiglu` (with two thirds of that). Without
    `shifts` the modulation only scales and gates [1].
    """

    def __init__(
        self,
        *,
        width: int,
        num_heads: int,
        mlp_ratio: float,
        norm: Norm,
        feedforward: Feedforward,
        qk_norm: bool,
        shifts: bool,
    ):
        super().__init__()
        if feedforward not in ("gelu", "swiglu"):
            raise ValueError(f"Unknown feedforward {feedforward!r}. Choose gelu or swiglu.")
        hidden = int(width * mlp_ratio)
        self.norm1 = token_norm(norm, width)
        self.attn = Attention(width=width, num_heads=num_heads, head_norm=partial(head_norm, norm) if qk_norm else None)
        self.norm2 = token_norm(norm, width)
        self.mlp = (
            SwiGLU(width=width, hidden=swiglu_hidden(hidden))
            if feedforward == "swiglu"
            else MLP(width=width, hidden=hidden, approximate="tanh")
        )
        self.shifts = shifts
        self.modulation = nn.Linear(width, (6 if shifts else 4) * width)

    def forward(
        self,
        x: Tensor,  # (B, T, D)
        condition: Tensor,  # (B, D) or (B, T, D), after its activation
        rotation: tuple[Tensor, Tensor] | None,
    ) -> Tensor:  # (B, T, D)
        """The block's output."""
        parameters = over_tokens(self.modulation(condition))  # (B, 1 or T, 6D or 4D)
        shift_attn: Tensor | None = None
        shift_mlp: Tensor | None = None
        if self.shifts:
            shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = parameters.chunk(6, dim=-1)
        else:
            scale_attn, gate_attn, scale_mlp, gate_mlp = parameters.chunk(4, dim=-1)
        x = x + gate_attn * self.attn(modulate(self.norm1(x), scale_attn, shift_attn), rotation)
        return x + gate_mlp * self.mlp(modulate(self.norm2(x), scale_mlp, shift_mlp))


class ConditionedHead(nn.Module):
    """A linear map of normalized and modulated tokens, always with a shift."""

    def __init__(self, *, width: int, out_features: int, norm: Norm):
        super().__init__()
        self.norm = token_norm(norm, width)
        self.modulation = nn.Linear(width, 2 * width)
        self.linear = nn.Linear(width, out_features)

    def forward(
        self,
        x: Tensor,  # (B, T, D)
        condition: Tensor,  # (B, D) or (B, T, D), after its activation
    ) -> Tensor:  # (B, T, out_features)
        """The output tokens."""
        shift, scale = over_tokens(self.modulation(condition)).chunk(2, dim=-1)
        return self.linear(modulate(self.norm(x), scale, shift))


def over_tokens(
    parameters: Tensor,  # (B, K) or (B, T, K)
) -> Tensor:  # (B, 1, K) or (B, T, K)
    """The parameters of a modulation, for all tokens alike or for each."""
    return parameters.unsqueeze(1) if parameters.ndim == 2 else parameters


def modulate(
    x: Tensor,  # (B, T, D)
    scale: Tensor,  # (B, 1 or T, D)
    shift: Tensor | None,  # (B, 1 or T, D)
) -> Tensor:  # (B, T, D)
    """x * (1 + scale), plus the shift if there is one."""
    scaled = x * (1 + scale)
    return scaled if shift is None else scaled + shift


def swiglu_hidden(hidden: int) -> int:
    """The hidden units of a SwiGLU with about as many parameters as an MLP with `hidden` units: two thirds [1]."""
    return int(2 / 3 * hidden)
