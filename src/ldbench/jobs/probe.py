"""Job `probe`: how much of an image's class a linear reader finds in its latent."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from ldbench.analysis.probe import linear_probe
from ldbench.core.protocols import Estimate, ImageData, ImageSet
from ldbench.core.tokenizer import Tokenizer


class Probe:
    """Trains a linear reader on the posterior means of training images, flattened, and counts its hits on all held-out ones.

    Raises ValueError for data of one class.
    """

    name: ClassVar[str] = "probe"
    revision: ClassVar[int] = 1
    settings: ClassVar[tuple[str, ...]] = ("num_train", "seed", "penalty", "max_iter")

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        data: ImageData,
        num_train: int | None,  # at most; None: all
        seed: int,
        penalty: float,
        max_iter: int,
        batch_size: int,
        workers: int,
        device: torch.device,
    ):
        if data.num_classes < 2:
            raise ValueError(f"A probe tells classes apart, and {data.name} has {data.num_classes}. Choose data with two or more.")
        self.tokenizer = tokenizer
        self.data = data
        self.num_train = num_train
        self.seed = seed
        self.penalty = penalty
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.workers = workers
        self.device = device

    @staticmethod
    def check(settings: Mapping[str, Any]) -> None:
        """Raises ValueError for settings out of range."""
        num_train = settings["num_train"]
        if num_train is not None and (not isinstance(num_train, int) or num_train < 2):
            raise ValueError(f"job.num_train must be a whole number of at least 2, or null for all, got {num_train!r}.")
        if settings["penalty"] <= 0:
            raise ValueError(f"job.penalty must be positive, got {settings['penalty']}.")
        for key in ("max_iter", "batch_size"):
            if settings[key] < 1:
                raise ValueError(f"job.{key} must be at least 1, got {settings[key]}.")

    @staticmethod
    def leaves(settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The files in the folder of figures without which a known measurement is made again: none."""
        return ()

    def run(self, out: Path) -> dict[str, Estimate]:
        """The reader's accuracy on held-out images with its 95 % interval, and that of always naming the most frequent class."""
        train, train_y = self.encode(self.chosen(self.data.train))
        test, test_y = self.encode(self.data.test)
        found = linear_probe(train, train_y, test, test_y, penalty=self.penalty, max_iter=self.max_iter)
        return {"probe/accuracy": Estimate(found.accuracy, found.low, found.high), "probe/chance": Estimate(found.chance)}

    def chosen(self, images: ImageSet) -> ImageSet:
        """The training images that are used, drawn from the seed alone; fewer of one seed are among more of it."""
        if self.num_train is None or self.num_train >= len(images):
            return images
        drawn = torch.randperm(len(images), generator=torch.Generator().manual_seed(self.seed))[: self.num_train]
        return Subset(images, drawn.sort().values.tolist())

    @torch.no_grad()
    def encode(self, images: ImageSet) -> tuple[Tensor, Tensor]:  # (n, N * C), (n,)
        """The flattened posterior means of images, and their labels."""
        tokenizer = self.tokenizer.to(self.device).eval()
        loader = DataLoader(images, batch_size=self.batch_size, num_workers=self.workers)
        batches = [(tokenizer.encode(batch.to(self.device)).mean.flatten(1).float().cpu(), y) for batch, y in loader]
        latents, labels = zip(*batches, strict=True)
        return torch.cat(latents), torch.cat(labels)
