"""Points of a latent store: whole latents, flattened, or their tokens, read a block at a time and never held."""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from ldbench.analysis.gmm.points import Points, held
from ldbench.analysis.gmm.whitening import Whitening
from ldbench.data.latents.store import LatentStore

Each = Literal["image", "token"]

BLOCK = 1 << 22  # numbers that are read at once


class StoredPoints:
    """The raw points of some rows of a store, image by image; in a whitened basis once they were given one."""

    def __init__(
        self,
        store: LatentStore,
        rows: Tensor,  # (m,) int64
        *,
        each: Each,
        latent: Literal["mean", "sample"],
        seed: int,  # of samples
        device: torch.device,
        whitening: Whitening | None = None,
    ):
        self.store = store
        self.images = rows
        self.each = each
        self.latent = latent
        self.seed = seed
        self.device = device
        self.whitening = whitening
        self.per_image = 1 if each == "image" else store.latent.num_tokens
        self.dim = (
            whitening.dim
            if whitening is not None
            else store.latent.num_tokens * store.latent.channels // self.per_image
        )

    def __len__(self) -> int:
        return len(self.images) * self.per_image

    def whitened(self, whitening: Whitening) -> "StoredPoints":
        """The same points in a basis."""
        way = {"each": self.each, "latent": self.latent, "seed": self.seed, "device": self.device}
        return StoredPoints(self.store, self.images, **way, whitening=whitening)

    def of_images(self, chosen: Tensor) -> "StoredPoints":  # chosen: (m,) bool
        """The points of some of the images."""
        way = {
            "each": self.each,
            "latent": self.latent,
            "seed": self.seed,
            "device": self.device,
            "whitening": self.whitening,
        }
        return StoredPoints(self.store, self.images[chosen], **way)

    def held_below(self, num_bytes: float) -> Points:
        """The points in memory if they take less, else themselves."""
        return held(self) if len(self) * self.dim * 4 <= num_bytes else self

    def chunks(self, size: int) -> Iterator[Tensor]:
        """(n, D) float32, image by image."""
        numbers = self.store.latent.num_tokens * self.store.latent.channels
        for rows in self.images.split(max(1, BLOCK // numbers)):
            yield from self.read(rows).split(size)

    def blocks(self) -> Iterator[Tensor]:
        """The points in the blocks in which they are read."""
        return self.chunks(1 << 62)

    def rows(self, places: Tensor) -> Tensor:
        """Some of the points, by ascending places."""
        images, inverse = (places // self.per_image).unique(return_inverse=True)
        wanted = inverse * self.per_image + places % self.per_image
        numbers = self.store.latent.num_tokens * self.store.latent.channels
        found, first = [], 0
        for part in images.split(max(1, BLOCK // numbers)):
            here = wanted[(wanted >= first) & (wanted < first + len(part) * self.per_image)] - first
            found.append(self.read(self.images[part])[here.to(self.device)])
            first += len(part) * self.per_image
        return torch.cat(found)

    def read(
        self,
        rows: Tensor,  # (b,)
    ) -> Tensor:  # (b or b N, D)
        """The points of some rows."""
        if self.latent == "mean":
            z = self.store.read(rows)[0][:, 0].to(self.device).float()
        else:
            z = self.store.batch(rows, seed=self.seed, step=0)[0].to(self.device)
        points = z.flatten(1) if self.each == "image" else z.flatten(0, 1)
        return points if self.whitening is None else self.whitening(points)


def unmirrored(store: LatentStore) -> Tensor:  # (num_images,)
    """The rows of a store's images as they are: mirrored ones are no points of their own."""
    return torch.arange(store.manifest.num_images)
