"""Which images make up which batch: a function of seed and batch number alone, so that a run can stop and go on anywhere."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

CROP_RATIO = (3 / 4, 4 / 3)  # width over height of random-resized crops


class CroppingSet(Protocol):
    """Images that can be cut out of their larger originals."""

    def __len__(self) -> int: ...

    def draw(
        self,
        index: int,
        *,
        scale: tuple[float, float],
        ratio: tuple[float, float],
        rng: torch.Generator,
    ) -> tuple[Tensor, int]: ...

    def draw_square(self, index: int, *, scale: tuple[float, float], rng: torch.Generator) -> tuple[Tensor, int]: ...


class RandomCrops(Dataset):
    """Random crops: item `index + pass * len` is that image's crop in that pass, drawn from (seed, item) alone.

    `kind`: `area` is the random-resized crop of a share `scale` of the area; `side` is ADM's square of a share `scale` of the shorter side.
    """

    def __init__(self, images: CroppingSet, *, kind: str, scale: tuple[float, float], seed: int):
        self.images = images
        self.kind = kind
        self.scale = scale
        self.seed = seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        said = f"{self.seed}/{item}"
        rng = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(said.encode()).digest()[:7], "big"))
        if self.kind == "side":
            return self.images.draw_square(item % len(self.images), scale=self.scale, rng=rng)
        return self.images.draw(item % len(self.images), scale=self.scale, ratio=CROP_RATIO, rng=rng)


class BatchStream(Sampler[list[int]]):
    """The indices of batches `start()` to `num_batches`; every pass over the data is a new permutation, and passes join without a gap.

    With `count_passes` every pass over the data counts on where the last one ended, so that each item can be drawn anew.
    Of each batch, process `rank` of `world` gets every `world`-th image. `overfit_batches` > 0 repeats that many first batches.
    Raises ValueError unless `world` divides `batch_size`.
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
                f"A batch of {batch_size} images cannot be shared by {world} processes. Choose a multiple of {world}."
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
        passes = [divmod(place, self.num_images) for place in range(first, first + self.batch_size)]
        return [self.permutation(epoch)[place] + self.count_passes * epoch * self.num_images for epoch, place in passes]

    def permutation(self, epoch: int) -> list[int]:
        """The order of the images in a pass over the data."""
        if getattr(self, "_epoch", None) != epoch:
            rng = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._epoch, self._order = epoch, torch.randperm(self.num_images, generator=rng).tolist()
        return self._order
