"""Foundation models: patch tokens of a frozen vision transformer from timm, with weights that the user provides.

[0] Chen et al., Masked Autoencoders Are Effective Tokenizers for Diffusion Models, 2025,
https://arxiv.org/abs/2502.03444 (as a teacher)
[1] Yao et al., Reconstruction vs. Generation, 2025, https://arxiv.org/abs/2501.01423 (as a teacher)
[2] Sauer et al., StyleGAN-T, 2023, https://arxiv.org/abs/2301.09515 (as the frozen backbone of a discriminator)
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from einops import rearrange
from timm.layers import resample_patch_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from ldbench.layers.timm_vit import build_vit

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and standard deviation of images in [0, 1]
UNCHANGED = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # keeps images in [-1, 1]
NORMALIZATIONS = ("own", "legacy", "none")
# Classification heads after the last norm, which a teacher does not use.
HEADS = ("head.", "head_dist.", "fc_norm.", "attn_pool.", "pre_logits.")


class Foundation(nn.Module):
    """Patch tokens after the last norm of a vision transformer, without prefix tokens; never trained.

    Images are resized so that the model's own patches match the requested grid; its position table is resampled to that
    grid. The network follows the caller's autocast; features are float32.

    `architecture`: timm's name, with the tag that defines its image normalization. `weights`: its tensors in timm's
    layout; classification heads are dropped. `normalization`: "own" is the model's; "legacy" is ImageNet's for every
    model, as in the official code of [0]; "none" keeps images in [-1, 1], as in that of [1]. `patch_size`: None is the
    model's own; for another the patch kernel is resampled. `antialias`: whether bilinear resizing of images is
    antialiased; it is not in the official code of [1]. Raises ValueError for a model that timm does not have or that is
    not a plain vision transformer, and for mismatched weights.
    """

    revision: ClassVar[int] = 1

    def __init__(
        self,
        *,
        architecture: str,
        weights: Mapping[str, Tensor],
        normalization: str,
        patch_size: int | None,
        antialias: bool,
    ):
        super().__init__()
        if normalization not in NORMALIZATIONS:
            raise ValueError(f"Unknown normalization {normalization!r}. Choose one of {', '.join(NORMALIZATIONS)}.")
        if patch_size is not None and patch_size < 1:
            raise ValueError(f"patch_size must be at least 1, got {patch_size}. null is the model's own.")
        self.vit = build_empty(architecture)
        if "fc_norm.weight" in weights and "norm.weight" not in weights:
            raise ValueError(
                f"{architecture} has its last norm after the pooling, so that its patch tokens are not normalized. "
                "Choose another model."
            )
        state = {
            key: value.detach().to(torch.float32, copy=True)
            for key, value in weights.items()
            if not key.startswith(HEADS)
        }
        validate_weights(architecture, self.vit, state)
        if patch_size is not None:
            with torch.device("meta"):
                self.vit.patch_embed.proj = nn.Conv2d(
                    3,
                    self.vit.embed_dim,
                    kernel_size=patch_size,
                    stride=patch_size,
                    bias="patch_embed.proj.bias" in state,
                )
            # Its grid is unchanged: it is the size of the position table.
            self.vit.patch_embed.patch_size = (patch_size, patch_size)
            kernel = resample_patch_embed(state["patch_embed.proj.weight"], [patch_size, patch_size])
            state["patch_embed.proj.weight"] = kernel
        self.vit.load_state_dict(state, assign=True)
        self.requires_grad_(False)
        self.eval()
        config = cast(dict[str, Any], self.vit.pretrained_cfg)
        own = (config["mean"], config["std"])
        mean, std = {"own": own, "legacy": IMAGENET, "none": UNCHANGED}[normalization]
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.patch_size: tuple[int, int] = self.vit.patch_embed.patch_size
        self.antialias = antialias

    def train(self, mode: bool = True) -> "Foundation":
        """Does nothing: the network stays in eval mode."""
        return super().train(False)

    def channels(self, image_size: int, grid: tuple[int, int]) -> int:
        """The model's width, for every image size and grid."""
        return self.vit.embed_dim

    def normalize(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
    ) -> Tensor:  # (B, 3, H, W)
        """The normalized input of the model."""
        return ((images.float() + 1) / 2 - self.mean) / self.std

    @torch.no_grad()
    def forward(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
        grid: tuple[int, int],
    ) -> Tensor:  # (B, P, D)
        """The features at the grid's positions, row-major. Raises ValueError for an empty grid."""
        if min(grid) < 1:
            raise ValueError(f"A grid of {grid[0]}x{grid[1]} is empty. Expected at least 1x1.")
        size = (grid[0] * self.patch_size[0], grid[1] * self.patch_size[1])
        x = self.normalize(images)
        if x.shape[-2:] != size:
            x = F.interpolate(x, size=size, mode="bilinear", antialias=self.antialias)
        return self.vit.forward_features(x)[:, self.vit.num_prefix_tokens :].float()

    def readouts(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1], at the model's input size
        depths: Sequence[int],
    ) -> list[Tensor]:  # of (B, D, P)
        """The patch tokens, plus the class token if there is one: of the embedding, then after each block of `depths`
        (from 0).

        Images get gradients. Raises ValueError for images whose sides are not multiples of the patch size, and for
        unknown blocks.
        """
        height, width = images.shape[-2:]
        if height % self.patch_size[0] or width % self.patch_size[1]:
            raise ValueError(
                f"Patches of {self.patch_size[0]} pixels do not divide an image of {height}x{width}. "
                "Crop or resize it to a multiple."
            )
        unknown = [depth for depth in depths if not 0 <= depth < len(self.vit.blocks)]
        if unknown:
            raise ValueError(
                f"There is no block {unknown[0]}: this model has 0 to {len(self.vit.blocks) - 1}. "
                "Choose `depths` among them."
            )
        x = self.vit.norm_pre(self.vit._pos_embed(self.vit.patch_embed(self.normalize(images))))
        embedding, by_depth = self.read(x), {}
        for depth in range(max(depths, default=-1) + 1):
            x = self.vit.blocks[depth](x)
            if depth in depths:
                by_depth[depth] = self.read(x)
        return [embedding, *(by_depth[depth] for depth in depths)]

    def read(
        self,
        tokens: Tensor,  # (B, T, D)
    ) -> Tensor:  # (B, D, P)
        """Patch tokens plus class token."""
        patches = tokens[:, self.vit.num_prefix_tokens :]
        if self.vit.cls_token is not None:
            patches = patches + tokens[:, :1]
        return rearrange(patches.float(), "b p d -> b d p")


def build_empty(architecture: str) -> VisionTransformer:
    """timm's model of this name without heads and weights (on the meta device). Raises ValueError as `build_vit`."""
    with torch.device("meta"):
        return build_vit(architecture, dynamic_img_size=True)


def validate_weights(architecture: str, vit: VisionTransformer, state: Mapping[str, Tensor]) -> None:
    """Raises ValueError naming the first tensors that are missing, unknown, or of another shape."""
    expected = {key: tuple(value.shape) for key, value in vit.state_dict().items()}
    missing, unknown = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    misshapen = [
        f"{key} {shapes[key]}, expected {shape}" for key, shape in expected.items() if shapes.get(key, shape) != shape
    ]
    problems = (("missing", missing), ("unknown", unknown), ("of another shape", misshapen))
    details = [f"{len(keys)} {problem} (first: {keys[0]})" for problem, keys in problems if keys]
    if details:
        hub = cast(dict[str, Any], vit.pretrained_cfg).get("hf_hub_id")
        source = f", such as the file at hf://{hub}" if hub else ""
        raise ValueError(
            f"These weights are not those of {architecture}: {'; '.join(details)}. Expected timm's own layout{source}."
        )
