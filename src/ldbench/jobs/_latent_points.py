"""Points of a latent store: whole latents, flattened, or their tokens, read from disk in blocks, with each channel in
units of its standard deviation, as generators learn them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ldbench.analysis.gmm.points import Points, load_points
from ldbench.analysis.gmm.whitening import Whitening
from ldbench.data.latents.store import LatentStore

PointUnit = Literal["image", "token"]

BLOCK = 1 << 22  # numbers that are read at a time


@dataclass(frozen=True)
class ChannelUnits:
    """The mean and the standard deviation of each channel; 1 for a constant channel."""

    mean: Tensor  # (C,) float64
    std: Tensor  # (C,) float64

    @classmethod
    def of(cls, store: LatentStore, latent: Literal["mean", "sample"]) -> "ChannelUnits":
        """Those of a whole store."""
        std = store.manifest.statistics.std("samples" if latent == "sample" else "means")
        return cls(store.manifest.statistics.mean, torch.where(std > 0, std, 1.0))


class StoredPoints:
    """The points of some rows of a store, image by image; in a whitened basis where `whitening` is given."""

    def __init__(
        self,
        store: LatentStore,
        rows: Tensor,  # (m,) int64
        *,
        unit: PointUnit,
        channels: ChannelUnits,
        latent: Literal["mean", "sample"],
        seed: int,  # of samples
        device: torch.device,
        whitening: Whitening | None = None,
    ):
        self.store = store
        self.images = rows
        self.unit = unit
        self.channels = channels
        self.latent = latent
        self.seed = seed
        self.device = device
        self.whitening = whitening
        self.per_image = 1 if unit == "image" else store.latent.num_tokens
        self.dim = (
            whitening.dim
            if whitening is not None
            else store.latent.num_tokens * store.latent.channels // self.per_image
        )

    def __len__(self) -> int:
        return len(self.images) * self.per_image

    def whitened(self, whitening: Whitening) -> "StoredPoints":
        """The same points in a whitened basis."""
        return self._copy(self.images, whitening)

    def select_images(self, mask: Tensor) -> "StoredPoints":  # mask: (m,) bool
        """The points of some of the images."""
        return self._copy(self.images[mask], self.whitening)

    def _copy(self, rows: Tensor, whitening: Whitening | None) -> "StoredPoints":
        return StoredPoints(
            self.store,
            rows,
            unit=self.unit,
            channels=self.channels,
            latent=self.latent,
            seed=self.seed,
            device=self.device,
            whitening=whitening,
        )

    def loaded_below(self, num_bytes: float) -> Points:
        """The points loaded into memory if they need at most `num_bytes`, else `self`."""
        return load_points(self) if len(self) * self.dim * 4 <= num_bytes else self

    def chunks(self, size: int) -> Iterator[Tensor]:
        """(n, D) float32, image by image."""
        numbers = self.store.latent.num_tokens * self.store.latent.channels
        for rows in self.images.split(max(1, BLOCK // numbers)):
            yield from self.read(rows).split(size)

    def blocks(self) -> Iterator[Tensor]:
        """The points in blocks as they are read from disk."""
        return self.chunks(1 << 62)

    def rows(self, indices: Tensor) -> Tensor:
        """The points of ascending indices."""
        images, inverse = (indices // self.per_image).unique(return_inverse=True)
        positions = inverse * self.per_image + indices % self.per_image
        numbers = self.store.latent.num_tokens * self.store.latent.channels
        blocks, first = [], 0
        for part in images.split(max(1, BLOCK // numbers)):
            in_part = positions[(positions >= first) & (positions < first + len(part) * self.per_image)] - first
            blocks.append(self.read(self.images[part])[in_part.to(self.device)])
            first += len(part) * self.per_image
        return torch.cat(blocks)

    def read(
        self,
        rows: Tensor,  # (b,)
    ) -> Tensor:  # (b or b N, D)
        """The points of some rows of the store."""
        if self.latent == "mean":
            z = self.store.read(rows)[0][:, 0].to(self.device).float()
        else:
            z = self.store.batch(rows, seed=self.seed, step=0)[0].to(self.device)
        z = (z - self.channels.mean.to(z)) / self.channels.std.to(z)
        points = z.flatten(1) if self.unit == "image" else z.flatten(0, 1)
        return points if self.whitening is None else self.whitening(points)


def unflipped_rows(store: LatentStore) -> Tensor:  # (num_images,)
    """The rows of a store's images without their flipped copies."""
    return torch.arange(store.manifest.num_images)


def subsample(
    rows: Tensor,  # (n,)
    count: int | None,
    *,
    seed: int,
) -> Tensor:  # (m,)
    """At most `count` of the rows, drawn by the seed alone, in order."""
    if count is None or count >= len(rows):
        return rows
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:count].sort().values]
