"""Alignment of a latent space to what a teacher sees: marginal cosine similarity and marginal distance matrix.

[0] Yao et al., Reconstruction vs. Generation: Taming Optimization Dilemma in Latent Diffusion Models, 2025, https://arxiv.org/abs/2501.01423
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ldbench.core.latent import LatentSpec
from ldbench.core.protocols import Teacher
from ldbench.core.tokenizer import Reconstruction
from ldbench.layers.masking import take
from ldbench.layers.query import QueryDecoder

ROWS = 1024  # of a distance matrix that are in memory at once


class Alignment(nn.Module):
    """How far a latent is from a teacher's features at the same places (eq. 2 to 5 of [0]): cosine_weight * cosine + distance_weight * distances.

    `projection`: `latent_to_teacher` (official) maps the latent to the teacher's channels without bias, `teacher_to_latent` the features to
    the latent's, with bias; `projection_frozen` leaves the map as it starts. `distances_of`: which latent the distance matrix is of,
    `projected` (official) or `latent` (eq. 3 of [0]). Latents without a grid are read at the patches by a query decoder of `reader_width`,
    `reader_depth` and `reader_num_heads`; latents of kept patches are held against the features at these.
    Raises ValueError for unknown words and numbers out of range.
    """

    revision: ClassVar[int] = 1

    def __init__(
        self,
        *,
        weight: float,
        start: int,
        warmup: int,
        teacher: Teacher,
        cosine_weight: float,
        cosine_margin: float,
        distance_weight: float,
        distance_margin: float,
        distances_of: Literal["projected", "latent"],
        projection: Literal["latent_to_teacher", "teacher_to_latent"],
        projection_frozen: bool,
        balancing: Literal["none", "encoder", "decoder"],
        largest_balance: float,
        reader_width: int,
        reader_depth: int,
        reader_num_heads: int,
        latent: LatentSpec,
        patch_grid: tuple[int, int],
        image_size: int,
    ):
        super().__init__()
        words = {"distances_of": (distances_of, ("projected", "latent")), "balancing": (balancing, ("none", "encoder", "decoder"))}
        words["projection"] = (projection, ("latent_to_teacher", "teacher_to_latent"))
        for name, (given, known) in words.items():
            if given not in known:
                raise ValueError(f"Unknown {name} {given!r}. Choose {' or '.join(known)}.")
        margins = {
            "cosine_weight": cosine_weight,
            "cosine_margin": cosine_margin,
            "distance_weight": distance_weight,
            "distance_margin": distance_margin,
        }
        for name, number in margins.items():
            if number < 0:
                raise ValueError(f"{name} must not be negative, got {number}.")
        self.weight = weight
        self.start = start
        self.warmup = warmup
        self.teacher = teacher
        self.cosine_weight = cosine_weight
        self.cosine_margin = cosine_margin
        self.distance_weight = distance_weight
        self.distance_margin = distance_margin
        self.distances_of = distances_of
        self.balancing = balancing
        self.largest_balance = largest_balance
        self.grid = patch_grid
        self.reader = None
        channels, theirs = latent.channels, teacher.channels(image_size, patch_grid)
        if latent.grid is None:
            self.reader = QueryDecoder(
                num_tokens=latent.num_tokens,
                latent_channels=latent.channels,
                grid=patch_grid,
                width=reader_width,
                depth=reader_depth,
                num_heads=reader_num_heads,
                mlp_ratio=4.0,
                rope_theta=10.0,
                class_token=False,
                modulation_start="identity",
                linear_std=0.02,
                token_std=0.02,
            )
            channels = reader_width
        self.to_teacher = nn.Linear(channels, theirs, bias=False) if projection == "latent_to_teacher" else None
        self.to_latent = nn.Linear(theirs, channels) if projection == "teacher_to_latent" else None
        for map_ in (self.to_teacher, self.to_latent):
            if map_ is not None and projection_frozen:
                map_.requires_grad_(False)

    def forward(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
        recon: Reconstruction,
        y: Tensor,  # (B,)
    ) -> Tensor:
        features = self.teacher(images, self.grid)
        if recon.kept is not None and self.reader is None:
            features = take(features, recon.kept)
        z = recon.z if self.reader is None else self.reader(recon.z, kept=recon.kept)
        z, features = z.float(), features.float()
        projected = z if self.to_teacher is None else self.to_teacher(z)
        target = features if self.to_latent is None else self.to_latent(features)
        total = z.new_zeros(())
        if self.cosine_weight:
            total = total + self.cosine_weight * marginal_cosine(projected, target, margin=self.cosine_margin)
        if self.distance_weight:
            compared = projected if self.distances_of == "projected" else z
            total = total + self.distance_weight * marginal_distance(compared, target, margin=self.distance_margin)
        return total


def marginal_cosine(
    z: Tensor,  # (B, N, D)
    features: Tensor,  # (B, N, D)
    *,
    margin: float,
) -> Tensor:
    """The mean of relu(1 - margin - cos) over images and places."""
    return F.relu(1 - margin - F.cosine_similarity(features, z, dim=-1, eps=1e-8)).mean()


def marginal_distance(
    z: Tensor,  # (B, N, C)
    features: Tensor,  # (B, N, D)
    *,
    margin: float,
) -> Tensor:
    """The mean of relu(|cos(z_i, z_j) - cos(f_i, f_j)| - margin) over images and pairs of places; of a large matrix, ROWS at a time."""
    z, features = F.normalize(z, dim=-1, eps=1e-12), F.normalize(features, dim=-1, eps=1e-12)

    def part(z_rows: Tensor, f_rows: Tensor) -> Tensor:
        return F.relu((z_rows @ z.mT - f_rows @ features.mT).abs() - margin).sum()

    batch, places = z.shape[:2]
    if places <= ROWS:
        return part(z, features) / (batch * places**2)
    rows = zip(z.split(ROWS, dim=1), features.split(ROWS, dim=1), strict=True)
    sums = [checkpoint(part, z_rows, f_rows, use_reentrant=False) for z_rows, f_rows in rows]
    return torch.stack(sums).sum() / (batch * places**2)
