"""Job `small_generator`: how well a generator of fixed budget learns a tokenizer's latents."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ldbench.core.estimate import Estimate
from ldbench.core.interfaces import Budget
from ldbench.core.intervals import student_mean
from ldbench.data.latents.store import LatentStore
from ldbench.jobs._latent_points import unflipped_rows


class LearnSmall:
    """The held-out and training loss of a small generator of standardized posterior means, with intervals over images.

    `explained` is the reduction relative to the best loss for independent normal numbers. The loss measures how hard
    latents are to learn in a few steps, not how good the images are: latents without information are the easiest, and
    many dependent numbers are easier than a few. It is therefore not ranked.
    """

    name: ClassVar[str] = "small_generator"
    revision: ClassVar[int] = 2
    requires: ClassVar[frozenset[str]] = frozenset({"tokenizer"})
    settings: ClassVar[tuple[str, ...]] = ("num_images", "budget")

    def __init__(
        self,
        *,
        train_latents: LatentStore,
        heldout_latents: LatentStore,
        num_images: int | None,
        budget: Budget,
        device: torch.device,
    ):
        self.train = train_latents
        self.heldout = heldout_latents
        self.num_images = num_images
        self.budget = budget
        self.device = device
        self.per_image: Mapping[str, Tensor] = {}  # of the last run

    @staticmethod
    def check(settings: Mapping[str, Any]) -> None:
        """Raises ValueError for settings out of range."""
        if settings["num_images"] is not None and settings["num_images"] < 2:
            raise ValueError(f"job.num_images must be at least 2, or null for all, got {settings['num_images']}.")

    @staticmethod
    def output_files(settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The files in the output folder without which a recorded measurement is repeated: none."""
        return ()

    def run(self, out: Path) -> dict[str, Estimate]:
        """The losses, in units of a channel's variance."""
        classes = self.train.manifest.contents.num_classes
        losses = self.budget.learn(
            *self.means(self.train), *self.means(self.heldout), num_classes=classes, device=self.device
        )
        self.per_image = {"small_generator/heldout_loss": losses.heldout.double()}
        return {
            "small_generator/heldout_loss": student_mean(losses.heldout),
            "small_generator/train_loss": student_mean(losses.train),
            "small_generator/explained": Estimate(losses.explained),
        }

    def means(self, store: LatentStore) -> tuple[Tensor, Tensor]:
        """Posterior means (n, N, C) float32 of unflipped images, drawn by the budget's seed, and their labels (n,)."""
        rows = unflipped_rows(store)
        if self.num_images is not None and self.num_images < len(rows):
            rows = rows[
                torch.randperm(len(rows), generator=torch.Generator().manual_seed(self.budget.seed))[: self.num_images]
                .sort()
                .values
            ]
        moments, labels = store.read(rows)
        return moments[:, 0].float(), labels
