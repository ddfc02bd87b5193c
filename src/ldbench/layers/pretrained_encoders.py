"""Pretrained encoders whose tokens are a tokenizer's latents: timm's vision transformers, and feature networks."""

from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from timm.layers import resample_patch_embed
from torch import Tensor, nn
from torch.nn import functional as F

from ldbench.layers.features import FeatureNetwork
from ldbench.layers.timm_vit import build_vit

FEATURE_NETWORK = "FeatureNetwork"  # the architecture of ours


class VisionEncoder(nn.Module):
    """The patch tokens of a vision transformer of timm, after a last LayerNorm without weights.

    `architecture`: timm's name; `settings`: of its constructor, where they differ from that model's, and `norm_eps`
    of its LayerNorms. Raises ValueError for a model that timm does not have, and if its patches do not divide
    `image_size`.
    """

    def __init__(self, *, image_size: int, architecture: str, settings: Mapping[str, Any]):
        super().__init__()
        settings = dict(settings)
        norm_eps = settings.pop("norm_eps", None)
        self.vit = build_vit(architecture, **{**settings, "img_size": image_size})
        for module in self.vit.modules():
            if isinstance(module, nn.LayerNorm) and norm_eps is not None:
                module.eps = float(norm_eps)
        norm = self.vit.norm
        assert isinstance(norm, nn.LayerNorm), "a plain vision transformer's"
        self.vit.norm = nn.LayerNorm(norm.normalized_shape, eps=norm.eps, elementwise_affine=False)
        rows, columns = self.vit.patch_embed.grid_size
        if (rows * self.vit.patch_embed.patch_size[0], columns) != (image_size, rows):
            raise ValueError(
                f"The patches of {architecture} ({self.vit.patch_embed.patch_size[0]} px) do not divide the encoder's "
                f"{image_size} px."
            )
        self.grid: tuple[int, int] = (rows, columns)
        self.channels: int = self.vit.embed_dim

    def forward(
        self,
        x: Tensor,  # (B, 3, S, S) normalized, S the encoder's size
    ) -> Tensor:  # (B, P, D)
        """The patch tokens."""
        return self.vit.forward_features(x)[:, self.vit.num_prefix_tokens :]

    @property
    def last(self) -> nn.Parameter:
        """The last matrix."""
        return [value for value in self.vit.blocks.parameters() if value.ndim > 1][-1]

    def load_weights(
        self,
        weights: Mapping[str, Tensor],  # in timm's layout
    ) -> None:
        """Takes pretrained weights, without heads and the last norm's; kernel and positions are resampled to its sizes.

        Positions are resampled bicubically, with antialiasing for a model with registers, as by transformers. Raises
        ValueError for weights of another model.
        """
        own = self.vit.state_dict()
        taken = {key: value.detach().float() for key, value in weights.items() if key in own}
        kernel, table = "patch_embed.proj.weight", "pos_embed"
        if kernel in taken and taken[kernel].ndim == 4:
            taken[kernel] = resample_patch_embed(taken[kernel], list(own[kernel].shape[-2:]))
        if table in taken and taken[table].ndim == 3:
            taken[table] = resample_positions(
                taken[table], self.grid, own[table].shape[1], antialias="reg_token" in own
            )
        wrong = sorted(key for key, value in own.items() if key not in taken or taken[key].shape != value.shape)
        if wrong:
            raise ValueError(
                f"These weights are not of this encoder: {len(wrong)} of its {len(own)} tensors are missing or of "
                f"another shape (first: {wrong[0]}). Expected timm's own layout of the same architecture."
            )
        self.vit.load_state_dict(taken)


class NetworkEncoder(nn.Module):
    """The feature map of a `FeatureNetwork`, one token for each of its positions.

    `settings`: the keywords of the network beside its image size.
    """

    def __init__(self, *, image_size: int, settings: Mapping[str, Any]):
        super().__init__()
        try:
            self.network = FeatureNetwork(image_size=image_size, **settings)
        except TypeError as error:
            raise ValueError(f"These settings build no {FEATURE_NETWORK}: {error}.") from error
        self.grid = (image_size // 4, image_size // 4)
        self.channels = self.network.map_channels

    def forward(
        self,
        x: Tensor,  # (B, 3, S, S) normalized
    ) -> Tensor:  # (B, P, D)
        """The tokens."""
        return rearrange(self.network.map(x), "b d h w -> b (h w) d")

    @property
    def last(self) -> nn.Parameter:
        """The last convolution that its tokens depend on."""
        return [value for value in self.network.stages.parameters() if value.ndim == 4][-1]

    def load_weights(
        self,
        weights: Mapping[str, Tensor],
    ) -> None:
        """Takes the weights of a trained network. Raises ValueError for one of other settings."""
        own = self.network.state_dict()
        wrong = sorted(key for key in own.keys() | weights.keys() if key not in own or key not in weights)
        wrong = wrong or sorted(key for key, value in own.items() if weights[key].shape != value.shape)
        if wrong:
            raise ValueError(f"These weights are of another {FEATURE_NETWORK}: {wrong[0]} is missing or does not fit.")
        self.network.load_state_dict(weights)


PretrainedEncoder = VisionEncoder | NetworkEncoder


def build_encoder(*, image_size: int, architecture: str, settings: Mapping[str, Any]) -> PretrainedEncoder:
    """The encoder of an architecture's name, with random weights. Raises ValueError for one that does not exist."""
    if architecture == FEATURE_NETWORK:
        return NetworkEncoder(image_size=image_size, settings=settings)
    return VisionEncoder(image_size=image_size, architecture=architecture, settings=settings)


def resample_positions(
    table: Tensor,  # (1, prefix + N, D), square
    grid: tuple[int, int],
    length: int,  # of the result, with its prefix
    *,
    antialias: bool,
) -> Tensor:  # (1, length, D)
    """A square position table at another grid: bicubic, half-pixel centers; its prefix is kept."""
    prefix = length - grid[0] * grid[1]
    side = round((table.shape[1] - prefix) ** 0.5)
    if prefix < 0 or side**2 != table.shape[1] - prefix or (side, side) == grid:
        return table
    maps = rearrange(table[:, prefix:], "1 (h w) d -> 1 d h w", h=side)
    resampled = F.interpolate(maps, size=grid, mode="bicubic", align_corners=False, antialias=antialias)
    return torch.cat([table[:, :prefix], rearrange(resampled, "1 d h w -> 1 (h w) d")], dim=1)
