"""The images of each batch: a function of seed and batch number alone, so that a run can resume anywhere."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

CROP_RATIO = (3 / 4, 4 / 3)  # width over height of random-resized crops


class CroppingSet(Protocol):
    """Images that can be cropped from larger originals."""

    def __len__(self) -> int: ...

    def draw(
        self,
        index: int,
        *,
        scale: tuple[float, float],
        ratio: tuple[float, float],
        rng: torch.Generator,
    ) -> tuple[Tensor, int]:
        """A random-resized crop of an image, and its label."""
        ...

    def draw_square(self, index: int, *, scale: tuple[float, float], rng: torch.Generator) -> tuple[Tensor, int]:
        """A random square crop of an image, and its label."""
        ...


class RandomCrops(Dataset):
    """Random crops: item `index + epoch * len` is that image's crop in that epoch, drawn from (seed, item) alone.

    `kind`: `area` is the random-resized crop of a fraction `scale` of the area; `side` is ADM's square crop of a
    fraction `scale` of the shorter side.
    """

    def __init__(self, images: CroppingSet, *, kind: str, scale: tuple[float, float], seed: int):
        self.images = images
        self.kind = kind
        self.scale = scale
        self.seed = seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        key = f"{self.seed}/{item}"
        rng = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big"))
        if self.kind == "side":
            return self.images.draw_square(item % len(self.images), scale=self.scale, rng=rng)
        return self.images.draw(item % len(self.images), scale=self.scale, ratio=CROP_RATIO, rng=rng)


class BatchStream(Sampler[list[int]]):
    """The indices of batches `start()` to `num_batches`; every epoch is a new permutation,
    and batches may span two epochs.

    With `count_passes` the indices of an epoch continue where the last one ended, so that each item can be augmented
    anew. Process `rank` of `world` gets every `world`-th image of each batch. `overfit_batches` > 0 repeats that many
    first batches. Raises ValueError unless `world` divides `batch_size`.
    """

    def __init__(
        self,
        *,
        num_images: int,
        batch_size: int,  # over all processes
        num_batches: int,
        seed: int,
        start: Callable[[], int],
        rank: int,
        world: int,
        overfit_batches: int,
        count_passes: bool,
    ):
        if batch_size % world:
            raise ValueError(
                f"A batch of {batch_size} images cannot be split over {world} processes. Choose a multiple of {world}."
            )
        if num_images < 1:
            raise ValueError("The training split is empty.")
        self.num_images = num_images
        self.batch_size = batch_size
        self.num_batches = num_batches
        self.seed = seed
        self.start = start
        self.rank = rank
        self.world = world
        self.overfit_batches = overfit_batches
        self.count_passes = count_passes

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[list[int]]:
        for batch in range(self.start(), self.num_batches):
            yield self.batch(batch)[self.rank :: self.world]

    def batch(self, number: int) -> list[int]:
        """The indices of one batch, over all processes."""
        number = number % self.overfit_batches if self.overfit_batches else number
        first = number * self.batch_size
        items = [divmod(position, self.num_images) for position in range(first, first + self.batch_size)]
        offset = self.count_passes * self.num_images
        return [self.permutation(epoch)[position] + epoch * offset for epoch, position in items]

    def permutation(self, epoch: int) -> list[int]:
        """The order of the images in an epoch."""
        if getattr(self, "_epoch", None) != epoch:
            rng = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._epoch, self._order = epoch, torch.randperm(self.num_images, generator=rng).tolist()
        return self._order
