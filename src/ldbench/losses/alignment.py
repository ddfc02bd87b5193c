"""Alignment of a latent space with a teacher's features: marginal cosine similarity and marginal distance matrix.

[0] Yao et al., Reconstruction vs. Generation: Taming Optimization Dilemma in Latent Diffusion Models, 2025,
https://arxiv.org/abs/2501.01423
[1] Chen et al., SoftVQ-VAE: Efficient 1-Dimensional Continuous Tokenizer, 2024, https://arxiv.org/abs/2412.10958
"""

from itertools import pairwise
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ldbench.core.interfaces import Teacher
from ldbench.core.latent import LatentSpec
from ldbench.core.tokenizer import Reconstruction
from ldbench.layers.masking import gather_tokens
from ldbench.layers.query import QueryDecoder
from ldbench.losses.base_term import BalancedTerm, Balancing

Reading = Literal["decoder", "repeat", "global", "avg_1d", "avg_1d_shuffle"]

ENTRIES = 2**24  # of distance matrices in memory at once, over a batch: 64 MiB


class Alignment(BalancedTerm):
    """The mismatch of a latent and a teacher's features: cosine_weight * cosine + distance_weight * distances (eq.
    2 to 5 of [0]).

    `projection`: `latent_to_teacher` (official) maps the latent to the teacher's channels without bias,
    `teacher_to_latent` the features to the latent's channels with bias, `mlp` the latent by three layers of
    `projection_width` [1]; with `projection_frozen` the map keeps its initial weights, or those of an earlier
    stage. `distances_of`: the latent of the distance matrix, `projected` (official) or `latent` (eq. 3 of [0]).
    `teaches`: trains the `tokenizer`, or the `projection` alone, which measures the alignment of a latent that is
    not trained for it; then nothing is balanced, and `balancing` is ignored. Latents without a grid are compared as
    `reading` says: `decoder` reads them at the patches by a query decoder of `reader_width`, `reader_depth` and
    `reader_num_heads`; `repeat` takes each for as many consecutive patches [1]; `global` compares the means of
    both; `avg_1d` averages as many consecutive patches as there are for a token, and `avg_1d_shuffle` permutes the
    patches before. Latents of kept patches are compared with the features of these patches. Predicts directions:
    held-out errors are 1 - cosine, for any margins. Raises ValueError for unknown choices, numbers out of range,
    and if nothing could learn.
    """

    revision: ClassVar[int] = 2

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
        projection: Literal["latent_to_teacher", "teacher_to_latent", "mlp"],
        projection_frozen: bool,
        teaches: Literal["tokenizer", "projection"],
        balancing: Balancing,
        largest_balance: float,
        reader_width: int,
        reader_depth: int,
        reader_num_heads: int,
        latent: LatentSpec,
        patch_grid: tuple[int, int],
        image_size: int,
        reading: Reading = "decoder",
        projection_width: int = 1024,
    ):
        super().__init__(
            weight=weight, start=start, warmup=warmup, balancing=balancing, largest_balance=largest_balance
        )
        choices = {
            "distances_of": (distances_of, ("projected", "latent")),
            "projection": (projection, ("latent_to_teacher", "teacher_to_latent", "mlp")),
            "reading": (reading, get_args(Reading)),
            "teaches": (teaches, ("tokenizer", "projection")),
        }
        for name, (choice, known) in choices.items():
            if choice not in known:
                raise ValueError(f"Unknown {name} {choice!r}. Choose {' or '.join(known)}.")
        margins = {
            "cosine_weight": cosine_weight,
            "cosine_margin": cosine_margin,
            "distance_weight": distance_weight,
            "distance_margin": distance_margin,
        }
        for name, number in margins.items():
            if number < 0:
                raise ValueError(f"{name} must not be negative, got {number}.")
        if not cosine_weight and not distance_weight:
            raise ValueError(
                "cosine_weight and distance_weight are both 0, so that this alignment measures nothing. "
                "Set one of them."
            )
        if teaches == "projection" and projection_frozen:
            raise ValueError(
                "teaches=projection with projection_frozen=true leaves nothing that learns. "
                "Set projection_frozen=false."
            )
        self.teacher = teacher
        self.cosine_weight = cosine_weight
        self.cosine_margin = cosine_margin
        self.distance_weight = distance_weight
        self.distance_margin = distance_margin
        self.distances_of = distances_of
        self.trains_tokenizer = teaches == "tokenizer"
        if not self.trains_tokenizer:
            self.balancing = "none"
        self.grid = patch_grid
        self.reader = None
        self.reading, self.num_tokens = reading, latent.num_tokens
        if latent.grid is not None and reading != "decoder":
            raise ValueError(f"reading={reading} is of latents without a grid, and these have one. Leave it out.")
        if reading == "repeat" and patch_grid[0] * patch_grid[1] % latent.num_tokens:
            raise ValueError(
                f"reading=repeat takes each of the {latent.num_tokens} tokens for as many of the "
                f"{patch_grid[0] * patch_grid[1]} patches, and that leaves a rest. Choose reading=avg_1d or decoder."
            )
        channels, teacher_channels = latent.channels, teacher.channels(image_size, patch_grid)
        if latent.grid is None and reading == "decoder":
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
        self.to_teacher: nn.Module | None = None
        if projection == "latent_to_teacher":
            self.to_teacher = Projection(channels, teacher_channels, bias=False)
        if projection == "mlp":
            widths = (channels, projection_width, projection_width, teacher_channels)
            layers = [layer for pair in pairwise(widths) for layer in (Projection(*pair), nn.SiLU())]
            self.to_teacher = nn.Sequential(*layers[:-1])
        self.to_latent = Projection(teacher_channels, channels) if projection == "teacher_to_latent" else None
        for map_ in (self.to_teacher, self.to_latent):
            if map_ is not None and projection_frozen:
                map_.requires_grad_(False)

    def forward(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
        recon: Reconstruction,
        y: Tensor,  # (B,)
    ) -> Tensor:
        """The loss of a batch."""
        z, target = self.read(recon), self.targets(images, y)
        kept = self.kept(recon)
        if kept is not None:
            target = gather_tokens(target, kept)
        projected = self.projected(z)
        total = z.new_zeros(())
        if self.cosine_weight:
            total = total + self.cosine_weight * marginal_cosine(projected, target, margin=self.cosine_margin)
        if self.distance_weight:
            compared = projected if self.distances_of == "projected" else z
            total = total + self.distance_weight * marginal_distance(compared, target, margin=self.distance_margin)
        return total

    def read(self, recon: Reconstruction) -> Tensor:  # (B, N_kept or P, C)
        """The latent at the teacher's positions, in single precision; detached if the tokenizer is not trained."""
        z = recon.z if self.trains_tokenizer else recon.z.detach()
        if self.reading == "repeat":
            z = z.repeat_interleave(self.grid[0] * self.grid[1] // self.num_tokens, dim=1)
        if self.reading == "global":
            z = z.mean(dim=1, keepdim=True)
        return (z if self.reader is None else self.reader(z, kept=recon.kept)).float()

    def projected(self, z: Tensor) -> Tensor:
        """The latent in the space of the comparison."""
        return z if self.to_teacher is None else self.to_teacher(z)

    def kept(self, recon: Reconstruction) -> Tensor | None:  # (B, N_kept)
        """The indices of the latent's positions; None if it has all of them."""
        return recon.kept if self.reader is None and self.reading == "decoder" else None

    def targets(self, images: Tensor, y: Tensor) -> Tensor:  # (B, P, D)
        """The teacher's features at every position, in the space of the comparison."""
        features = self.pooled(self.teacher(images, self.grid).float())
        return features if self.to_latent is None else self.to_latent(features)

    def pooled(
        self,
        features: Tensor,  # (B, P, D)
    ) -> Tensor:  # (B, P, D), (B, N, D) or (B, 1, D)
        """The features at the positions of the comparison."""
        if self.reading == "global":
            return features.mean(dim=1, keepdim=True)
        if self.reading == "avg_1d_shuffle":  # one order for all images; always the same one outside of training
            rng = None if self.training else torch.Generator().manual_seed(0)
            features = features[:, torch.randperm(features.shape[1], generator=rng).to(features.device)]
        if self.reading.startswith("avg_1d"):
            return F.adaptive_avg_pool1d(features.mT, self.num_tokens).mT
        return features

    def predict(self, recon: Reconstruction) -> Tensor:  # (B, P, D)
        """The latent at every position, in the space of the comparison; zeros where tokens were dropped."""
        projected, kept = self.projected(self.read(recon)), self.kept(recon)
        if kept is None:
            return projected
        full = projected.new_zeros(len(projected), self.grid[0] * self.grid[1], projected.shape[-1])
        return full.scatter(1, kept[..., None].expand_as(projected), projected)

    def errors(self, predicted: Tensor, targets: Tensor) -> Tensor:  # (B, P)
        """One minus the cosine at every position."""
        return 1 - F.cosine_similarity(targets, predicted, dim=-1, eps=1e-8)

    def average(self, errors: Tensor, recon: Reconstruction) -> Tensor:
        """The mean over the positions that were kept."""
        kept = self.kept(recon)
        return (errors if kept is None else errors.gather(1, kept)).mean()

    def constant(self, targets: Tensor) -> Tensor:  # (1, P, D)
        """The best direction without an image: the mean of each position's directions."""
        return F.normalize(targets, dim=-1).mean(dim=0, keepdim=True)


class Projection(nn.Linear):
    """A learned linear map: checkpoints hold it and later stages start from it, also if a stage freezes it."""

    learned: ClassVar[bool] = True


def marginal_cosine(
    z: Tensor,  # (B, N, D)
    features: Tensor,  # (B, N, D)
    *,
    margin: float,
) -> Tensor:
    """The mean of relu(1 - margin - cos) over images and positions."""
    return F.relu(1 - margin - F.cosine_similarity(features, z, dim=-1, eps=1e-8)).mean()


def marginal_distance(
    z: Tensor,  # (B, N, C)
    features: Tensor,  # (B, N, D)
    *,
    margin: float,
) -> Tensor:
    """The mean of relu(|cos(z_i, z_j) - cos(f_i, f_j)| - margin) over images and pairs of positions.

    Large matrices are computed in blocks of rows: at most ENTRIES values are in memory at once, also in the backward
    pass, which computes them again.
    """
    z, features = F.normalize(z, dim=-1, eps=1e-12), F.normalize(features, dim=-1, eps=1e-12)

    def part(z_rows: Tensor, f_rows: Tensor) -> Tensor:
        return F.relu((z_rows @ z.mT - f_rows @ features.mT).abs() - margin).sum()

    batch, positions = z.shape[:2]
    rows = max(1, ENTRIES // (batch * positions))
    if positions <= rows:
        return part(z, features) / (batch * positions**2)
    parts = zip(z.split(rows, dim=1), features.split(rows, dim=1), strict=True)
    sums = [checkpoint(part, z_rows, f_rows, use_reentrant=False) for z_rows, f_rows in parts]
    return torch.stack(sums).sum() / (batch * positions**2)
