"""DiT^DH: a transformer whose output tokens modulate a shallow and wide head on the noisy latent itself.

[0] Zheng et al., Diffusion Transformers with Representation Autoencoders (RAE), 2025, https://arxiv.org/abs/2510.11690
[1] Wang et al., DDT: Decoupled Diffusion Transformer, 2025, https://arxiv.org/abs/2504.05741
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ldbench.core.backbone import Backbone, InnerTokens
from ldbench.core.latent import LatentSpec
from ldbench.layers.condition import FourierTimeEmbed, label_table
from ldbench.layers.modulation import (
    ConditionedTransformer,
    Feedforward,
    conditioned_blocks,
    init_conditioned,
    inner_head,
    read_inner,
    run_blocks,
)
from ldbench.layers.norm import Norm
from ldbench.layers.patches import LatentPatches
from ldbench.layers.vit import init_transformer

Rotation = tuple[Tensor, Tensor] | None  # cos and sin of rotary positions, (1, T, head_dim / 2) each


class DiTDH(Backbone):
    """LightningDiT's blocks on patches with fixed sinusoids, then a head of `head_depth` blocks of `head_width` on the
    patches of the same latent without sinusoids, each token modulated by the encoder's output for it and the time
    (section 5 of [0], after [1]).

    A head that is at least as wide as the latent has channels is what latents of many channels need [0]. Takes maps of
    any grid whose sides `patch_size` divides, and sequences, with rotary positions of one axis. Officially time is 1 at
    the noise. `norm`, `feedforward`, `rope_theta`, `qk_norm`, `shifts`, `class_std`, `checkpointing` and
    `second_time` are LightningDiT's, of both parts, and `inner_block` is one of the encoder's. Raises ValueError for
    sizes that are not positive, and for unknown choices.
    """

    def __init__(
        self,
        *,
        latent: LatentSpec,
        num_classes: int,
        has_null_class: bool,
        learned_variance: bool,
        patch_size: int,
        width: int,
        depth: int,
        num_heads: int,
        head_width: int,
        head_depth: int,
        head_num_heads: int,
        mlp_ratio: float,
        norm: Norm,
        feedforward: Feedforward,
        rope_theta: float | None,
        qk_norm: bool,
        shifts: bool,
        class_std: float,
        checkpointing: bool,
        second_time: bool = False,
        inner_block: int | None = None,
    ):
        super().__init__(
            latent=latent, num_classes=num_classes, has_null_class=has_null_class, learned_variance=learned_variance
        )
        for name, value in {
            "head_width": head_width,
            "head_depth": head_depth,
            "head_num_heads": head_num_heads,
        }.items():
            if value <= 0:
                raise ValueError(f"{name} must be positive, got {value}.")
        self.checkpointing = checkpointing
        self.patches = LatentPatches(latent, patch_size)
        self.inner = InnerTokens(depth, width, self.patches.grid)  # of the encoder
        features = self.patches.positions_per_token * latent.channels
        self.encoder = conditioned_blocks(
            width=width,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            norm=norm,
            feedforward=feedforward,
            qk_norm=qk_norm,
            shifts=shifts,
        )
        self.inner_block = inner_block
        outputs = self.patches.positions_per_token * self.out_channels
        self.inner_head = inner_head(inner_block, depth, width=width, out_features=outputs, norm=norm)
        init_conditioned(self.encoder)
        if self.inner_head is not None:
            init_conditioned(self.inner_head)
        self.head = ConditionedTransformer(
            width=head_width,
            depth=head_depth,
            num_heads=head_num_heads,
            mlp_ratio=mlp_ratio,
            out_features=outputs,
            norm=norm,
            feedforward=feedforward,
            qk_norm=qk_norm,
            shifts=shifts,
            checkpointing=checkpointing,
        )
        self.embed = nn.Linear(features, width)
        self.head_embed = nn.Linear(features, head_width)
        self.head_condition = nn.Identity() if width == head_width else nn.Linear(width, head_width)
        for layer in (self.embed, self.head_embed, self.head_condition):
            layer.apply(init_transformer)
        self.second_time = second_time
        self.time = FourierTimeEmbed(width=width)
        self.interval = FourierTimeEmbed(width=width) if second_time else None
        self.classes = label_table(self.num_labels, width, std=class_std)
        self.positions: Tensor
        self.register_buffer("positions", self.patches.positions(width), persistent=False)  # (1, T, D)
        for part, head_dim in (("", width // num_heads), ("head_", head_width // head_num_heads)):
            cos, sin = (None, None) if rope_theta is None else self.patches.rotations(head_dim, rope_theta)
            self.register_buffer(f"{part}cos", cos, persistent=False)  # (1, T, head_dim / 2)
            self.register_buffer(f"{part}sin", sin, persistent=False)
        self.cos: Tensor | None
        self.sin: Tensor | None
        self.head_cos: Tensor | None
        self.head_sin: Tensor | None

    def forward(
        self,
        x: Tensor,  # (B, N, C)
        t: Tensor,  # (B,), a float
        y: Tensor,  # (B,)
        *,
        r: Tensor | None = None,  # (B,), see `second_time`
    ) -> Tensor:  # (B, N, C) or (B, N, 2C)
        """The network's output."""
        self.validate_inputs(x, t, y, r)
        patches = self.patches.split(x)
        time = self.time(t)  # (B, D)
        if self.interval is not None:
            time = time + self.interval(torch.zeros_like(t) if r is None else t - r)
        condition = F.silu(F.silu(time + self.classes(y)))  # twice, as officially: here and in each block
        tokens = self.embed(patches) + self.positions  # (B, T, D)
        tokens = run_blocks(
            self.encoder,
            tokens,
            condition,
            rotation_of(self.cos, self.sin),
            checkpointing=self.checkpointing,
            after_block=read_inner(
                self.inner_block, self.inner_head, condition, self.after_block, self.patches.joining(self.on_inner)
            ),
        )
        encoded = self.head_condition(F.silu(time.unsqueeze(1) + tokens))  # (B, T, D_head)
        out = self.head(self.head_embed(patches), encoded, rotation_of(self.head_cos, self.head_sin))
        return self.patches.join(out)


def rotation_of(cos: Tensor | None, sin: Tensor | None) -> Rotation:
    """Both tables, or none."""
    return None if cos is None or sin is None else (cos, sin)
