"""Alignment of a generator's inner tokens with a teacher's features of the clean images (REPA).

[0] Yu et al., Representation Alignment for Generation: Training Diffusion Transformers Is Easier Than You Think, 2024,
    https://arxiv.org/abs/2410.06940
[1] Singh et al., What Matters for Representation Alignment: Global Information or Spatial Structure?, 2025,
    https://arxiv.org/abs/2512.10794 (iREPA: a convolution as projector, features normalized over positions)
"""

from typing import ClassVar, Literal, get_args

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from ldbench.core.backbone import Backbone
from ldbench.core.interfaces import Teacher

ProjectorKind = Literal["mlp", "conv", "linear"]
Comparison = Literal["cosine", "mse"]
EPS = 1e-6  # added to the standard deviation over positions [1]


class RepresentationAlignment(nn.Module):
    """How far the projected tokens after a block of a backbone are from a teacher's features at the same positions.

    `block` (from 1) is the block whose tokens are compared. `projector`: `mlp`, three layers of `projector_width` with
    SiLU [0]; `conv`, one of 3 x 3 over the grid of tokens [1]; `linear`. `comparison`: `cosine`, minus the cosine
    similarity [0], or `mse`. With `normalize_positions` each feature of an image is normalized over its positions
    before [1]. All are means over positions. Teacher and projector are of the training alone.

    Raises ValueError for unknown choices, for a block that the backbone does not have, for latents without a grid, and
    with `normalize_positions` for a grid of one position.
    """

    revision: ClassVar[int] = 1

    def __init__(
        self,
        *,
        weight: float,
        block: int,
        teacher: Teacher,
        projector: ProjectorKind,
        projector_width: int,
        comparison: Comparison,
        normalize_positions: bool,
        backbone: Backbone,
        image_size: int,
    ):
        super().__init__()
        for name, choice, known in (("projector", projector, ProjectorKind), ("comparison", comparison, Comparison)):
            if choice not in get_args(known):
                raise ValueError(f"Unknown {name} {choice!r}. Choose one of {', '.join(get_args(known))}.")
        if weight <= 0:
            raise ValueError(f"weight must be above zero, got {weight}. Leave the loss out instead.")
        inner, name = backbone.inner, type(backbone).__name__
        if inner is None:
            raise ValueError(f"{name} does not hand out the tokens after its blocks. Choose another backbone.")
        if inner.grid is None:
            raise ValueError(
                "Representation alignment compares tokens and features at the same positions, and these latents have "
                "no grid. Choose a tokenizer whose latents are a map, such as vmae or vavae."
            )
        if not 1 <= block <= inner.depth:
            raise ValueError(f"block must be 1 to {inner.depth} for this {name}, got {block}.")
        if normalize_positions and inner.grid == (1, 1):
            raise ValueError(
                f"normalize_positions divides by the standard deviation over positions, and this {name} has tokens at "
                "one position alone. Set normalize_positions=false, or choose a smaller patch_size or a tokenizer with "
                "more positions."
            )
        self.weight = weight
        self.block = block
        self.teacher = teacher
        self.comparison = comparison
        self.normalize_positions = normalize_positions
        self.grid = inner.grid
        self.projector = build_projector(
            projector, inner.width, teacher.channels(image_size, inner.grid), hidden=projector_width, grid=inner.grid
        )

    def forward(
        self,
        tokens: Tensor,  # (B, T, D)
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
    ) -> Tensor:  # (B,)
        """The distance for each image."""
        features = self.teacher(images, self.grid)  # (B, T, K)
        if self.normalize_positions:
            features = normalized_over_positions(features)
        projected = self.projector(tokens).float()
        if self.comparison == "cosine":
            return -F.cosine_similarity(projected, features, dim=-1).mean(dim=1)
        return (projected - features).square().mean(dim=(1, 2))


class GridConvolution(nn.Module):
    """One convolution of 3 x 3 over tokens on a grid, with zeros around them."""

    def __init__(self, width: int, channels: int, *, grid: tuple[int, int]):
        super().__init__()
        self.grid = grid
        self.conv = nn.Conv2d(width, channels, kernel_size=3, padding=1)

    def forward(
        self,
        tokens: Tensor,  # (B, T, D)
    ) -> Tensor:  # (B, T, channels)
        """The mixed tokens."""
        maps = self.conv(rearrange(tokens, "b (h w) d -> b d h w", h=self.grid[0]))
        return rearrange(maps, "b k h w -> b (h w) k")


def build_projector(kind: ProjectorKind, width: int, channels: int, *, hidden: int, grid: tuple[int, int]) -> nn.Module:
    """The trained map from tokens to features."""
    if kind == "linear":
        return nn.Linear(width, channels)
    if kind == "conv":
        return GridConvolution(width, channels, grid=grid)
    return nn.Sequential(
        *(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, channels))
    )


def normalized_over_positions(
    features: Tensor,  # (B, T, K)
) -> Tensor:  # (B, T, K)
    """Each feature of an image minus its mean over positions, by its standard deviation over them [1]."""
    centered = features - features.mean(dim=1, keepdim=True)
    return centered / (torch.std(features, dim=1, keepdim=True) + EPS)
