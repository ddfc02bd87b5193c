"""A vision transformer that reads an image into learned latent tokens.

[0] Chen et al., Masked Autoencoders Are Effective Tokenizers for Diffusion Models (MAETok), 2025,
https://arxiv.org/abs/2502.03444
[1] Chen et al., SoftVQ-VAE: Efficient 1-Dimensional Continuous Tokenizer, 2024, https://arxiv.org/abs/2412.10958
"""

from collections.abc import Mapping
from functools import partial

import torch
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from torch import Tensor, nn

from ldbench.layers.embed import PatchEmbed
from ldbench.layers.position import resize_table
from ldbench.layers.rotary import MixedRotary
from ldbench.layers.vit import Transformer, init_timm


class LatentTokenEncoder(nn.Module):
    """Class token, patches and latent tokens -> transformer -> a linear map of the latent tokens' outputs [0, 1].

    The image tokens have a learned table of positions, and with `rope_theta` also mixed rotary positions.
    `layer_scale`: the initial value of LayerScale, or None for none. `linear_std`, `token_std`: the initial standard
    deviations of linear layers of the blocks, and of tokens and tables (official: 0.02 both).
    """

    def __init__(
        self,
        *,
        grid: tuple[int, int],
        patch_size: int,
        num_tokens: int,
        outputs: int,
        width: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        rope_theta: float | None,
        layer_scale: float | None,
        linear_std: float,
        token_std: float,
        mask_token: bool,
    ):
        super().__init__()
        self.grid = grid
        self.num_tokens = num_tokens
        self.patch_embed = PatchEmbed(patch_size=patch_size, width=width)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width)) if mask_token else None
        self.positions = nn.Parameter(torch.zeros(1, 1 + grid[0] * grid[1], width))
        self.latent_tokens = nn.Parameter(torch.zeros(1, num_tokens, width))
        self.latent_positions = nn.Parameter(torch.zeros(1, num_tokens, width))
        self.transformer = Transformer(
            width=width, depth=depth, num_heads=num_heads, mlp_ratio=mlp_ratio, layer_scale=layer_scale
        )
        self.rotary = (
            None
            if rope_theta is None
            else MixedRotary(depth=depth, num_heads=num_heads, head_dim=width // num_heads, theta=rope_theta)
        )
        self.to_latent = nn.Linear(width, outputs)
        self.transformer.apply(partial(init_timm, std=linear_std))
        nn.init.normal_(self.class_token, std=1e-6)
        for token in (self.mask_token, self.latent_tokens):
            if token is not None:
                nn.init.normal_(token, std=token_std)
        for table in (self.positions, self.latent_positions):
            nn.init.trunc_normal_(table, std=token_std)

    def read(
        self,
        images: Tensor,  # (B, 3, H, W)
        mask: Tensor | None = None,  # (B, P) bool, True = hidden
    ) -> Tensor:  # (B, N, outputs)
        """The outputs at the latent tokens."""
        x = self.patch_embed(images)  # (B, P, D)
        if mask is not None:
            assert self.mask_token is not None, "its tokenizer refuses masks"
            x = torch.where(mask[..., None], self.mask_token.to(x.dtype), x)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], dim=1) + self.positions
        x = torch.cat([x, (self.latent_tokens + self.latent_positions).expand(len(x), -1, -1)], dim=1)
        rotations = None if self.rotary is None else self.rotary(self.grid, before=1, after=self.num_tokens)
        return self.to_latent(self.transformer(x, rotations)[:, -self.num_tokens :])

    def init_from_vit(
        self,
        weights: Mapping[str, Tensor],  # in timm's layout
    ) -> None:
        """Takes the weights of a vision transformer: its kernel and its positions are resampled to these patches.

        Heads, and a mask token, are not used; latent tokens and `to_latent` are kept as they are. Raises ValueError
        for a transformer of another size.
        """
        names = {"cls_token": "class_token", "pos_embed": "positions"}
        state = dict(weights)
        for key in ("cls_token", "pos_embed", "patch_embed.proj.weight"):
            if key not in state:
                raise ValueError(f"These are no weights of a vision transformer with a class token: {key} is missing.")
        patch = self.patch_embed.proj.weight.shape[-2:]
        state["patch_embed.proj.weight"] = resample_patch_embed(state["patch_embed.proj.weight"].float(), list(patch))
        state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"].float(), new_size=list(self.grid))
        taken = {}
        for key, value in state.items():
            name = names.get(key, key).replace(".ls1.", ".scale1.").replace(".ls2.", ".scale2.")
            if name.startswith(("blocks.", "norm.")):
                taken[f"transformer.{name}"] = value
            elif name.startswith("patch_embed.") or key in names:
                taken[name] = value
        own = self.state_dict()
        expected = {key for key in own if key.startswith(("transformer.", "patch_embed."))} | {*names.values()}
        fitting = {key for key in expected & taken.keys() if taken[key].shape == own[key].shape}
        wrong = sorted((expected | taken.keys()) - fitting)
        if wrong:
            raise ValueError(
                f"This transformer is of another size than the encoder: {', '.join(wrong[:3])} do not fit. Set "
                "tokenizer.model.width, depth and layer_scale to its own, or give the weights of another."
            )
        self.load_state_dict({**own, **taken})

    def resize(self, grid: tuple[int, int]) -> None:
        """Changes the patch grid; the position table is interpolated."""
        self.positions = nn.Parameter(
            resize_table(self.positions.data, self.grid, grid, prefix=1), requires_grad=self.positions.requires_grad
        )
        self.grid = grid
