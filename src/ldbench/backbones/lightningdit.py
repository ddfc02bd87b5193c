"""LightningDiT: DiT with RMSNorm, SwiGLU and rotary positions, each of which can be switched off.

[0] Yao et al., Reconstruction vs. Generation: Taming Optimization Dilemma in Latent Diffusion Models, 2025,
https://arxiv.org/abs/2501.01423
"""

from torch import Tensor, nn

from ldbench.core.backbone import Backbone, InnerTokens
from ldbench.core.latent import LatentSpec
from ldbench.layers.condition import Condition
from ldbench.layers.modulation import ConditionedTransformer, Feedforward
from ldbench.layers.norm import Norm
from ldbench.layers.patches import LatentPatches
from ldbench.layers.vit import init_transformer


class LightningDiT(Backbone):
    """Patches -> adaLN-Zero blocks -> patches, with fixed sinusoids and rotary positions (Table 1 of [0]).

    Takes maps of any grid whose sides `patch_size` divides, and sequences, with rotary positions of one axis. `norm`:
    `rms` or `layer`; `feedforward`: `swiglu` or `gelu`; `rope_theta`: the base of the rotary frequencies, None for no
    rotary positions; `qk_norm`: whether queries and keys are normalized; without `shifts` blocks are only scaled and
    gated. `class_std`: the initial standard deviation of the label embedding. `checkpointing` (activations are
    recomputed) changes memory and speed only. With `second_time` the network also takes a second time.
    `inner_block`: after which a second head is trained with the same loss (guidance=internal).
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
        self.patches = LatentPatches(latent, patch_size)
        self.inner = InnerTokens(depth, width, self.patches.grid)
        self.transformer = ConditionedTransformer(
            width=width,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            out_features=self.patches.positions_per_token * self.out_channels,
            norm=norm,
            feedforward=feedforward,
            qk_norm=qk_norm,
            shifts=shifts,
            checkpointing=checkpointing,
            inner_block=inner_block,
        )
        self.inner_block = inner_block
        self.embed = nn.Linear(self.patches.positions_per_token * latent.channels, width)
        self.embed.apply(init_transformer)
        self.positions: Tensor
        self.register_buffer("positions", self.patches.positions(width), persistent=False)  # (1, T, D)
        cos, sin = (None, None) if rope_theta is None else self.patches.rotations(width // num_heads, rope_theta)
        self.cos: Tensor | None
        self.sin: Tensor | None
        self.register_buffer("cos", cos, persistent=False)  # (1, T, head_dim / 2)
        self.register_buffer("sin", sin, persistent=False)
        self.second_time = second_time
        self.condition = Condition(
            width=width, num_labels=self.num_labels, class_std=class_std, second_time=second_time
        )

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
        tokens = self.embed(self.patches.split(x)) + self.positions  # (B, T, D)
        rotation = None if self.cos is None or self.sin is None else (self.cos, self.sin)
        out = self.transformer(
            tokens,
            self.condition(t, y, r),
            rotation,
            after_block=self.after_block,
            on_inner=self.patches.joining(self.on_inner),
        )
        return self.patches.join(out)
