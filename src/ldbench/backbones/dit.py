"""DiT: a transformer on patches of a latent, modulated by time and class. SiT is the same network.

[0] Peebles and Xie, Scalable Diffusion Models with Transformers, 2023, https://arxiv.org/abs/2212.09748
[1] Ma et al., SiT: Exploring Flow and Diffusion-based Generative Models with Scalable Interpolant Transformers, 2024,
https://arxiv.org/abs/2401.08740
[2] Chen et al., Masked Autoencoders Are Effective Tokenizers for Diffusion Models (MAETok), 2025,
https://arxiv.org/abs/2502.03444 (1D latents)
"""

from torch import Tensor, nn

from ldbench.core.backbone import Backbone, InnerTokens
from ldbench.core.latent import LatentSpec
from ldbench.layers.condition import Condition
from ldbench.layers.modulation import ConditionedTransformer
from ldbench.layers.patches import LatentPatches
from ldbench.layers.vit import init_transformer


class DiT(Backbone):
    """Patches -> adaLN-Zero blocks with LayerNorm, GELU and fixed sinusoids -> patches.

    Takes maps of any grid whose sides `patch_size` divides, and sequences (MAETok's). Time is not rescaled: an integer
    index for DiT, a float in [0, 1] for SiT. `qk_norm`: whether queries and keys are normalized. `class_std`: the
    initial standard deviation of the label embedding. `checkpointing` (activations are recomputed) changes memory and
    speed only. With `second_time` the network also takes a second time.
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
        qk_norm: bool,
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
            norm="layer",
            feedforward="gelu",
            qk_norm=qk_norm,
            shifts=True,
            checkpointing=checkpointing,
            inner_block=inner_block,
        )
        self.inner_block = inner_block
        self.embed = nn.Linear(self.patches.positions_per_token * latent.channels, width)
        self.embed.apply(init_transformer)
        self.positions: Tensor
        self.register_buffer("positions", self.patches.positions(width), persistent=False)  # (1, T, D)
        self.second_time = second_time
        self.condition = Condition(
            width=width, num_labels=self.num_labels, class_std=class_std, second_time=second_time
        )

    def forward(
        self,
        x: Tensor,  # (B, N, C)
        t: Tensor,  # (B,), an index or a float
        y: Tensor,  # (B,)
        *,
        r: Tensor | None = None,  # (B,), see `second_time`
    ) -> Tensor:  # (B, N, C) or (B, N, 2C)
        """The network's output."""
        self.validate_inputs(x, t, y, r)
        tokens = self.embed(self.patches.split(x)) + self.positions  # (B, T, D)
        out = self.transformer(
            tokens,
            self.condition(t, y, r),
            after_block=self.after_block,
            on_inner=self.patches.joining(self.on_inner),
        )
        return self.patches.join(out)
