"""A measurement of latents: how far single numbers lie from the mean of their channel."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch.utils.data import DataLoader, Subset

from ldbench.core.estimate import Estimate
from ldbench.core.interfaces import ImageData
from ldbench.core.intervals import student_mean
from ldbench.core.tokenizer import Tokenizer


class Example:
    """The largest number of a standardized latent in standard deviations: its mean over held-out images.

    Keywords that the yaml does not set are filled by ldbench: see `ldbench.pipeline.job_context`.
    """

    name: ClassVar[str] = "example"
    revision: ClassVar[int] = 1  # raised when its numbers change
    requires: ClassVar[frozenset[str]] = frozenset({"tokenizer"})
    settings: ClassVar[tuple[str, ...]] = ("num_images",)  # on which its numbers depend
    higher_is_better: ClassVar[Mapping[str, bool]] = {"example/largest": False}

    def __init__(
        self, *, tokenizer: Tokenizer, data: ImageData, device: torch.device, num_images: int, batch_size: int
    ):
        self.tokenizer = tokenizer
        self.images = Subset(data.test, range(min(num_images, len(data.test))))  # type: ignore[arg-type]
        self.device = device
        self.batch_size = batch_size

    @staticmethod
    def check(settings: Mapping[str, Any]) -> None:
        """Raises ValueError for settings out of range, before any work begins."""
        if settings["num_images"] < 2:
            raise ValueError(f"job.num_images must be at least 2, got {settings['num_images']}.")

    @staticmethod
    def output_files(settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The files in the output folder without which a recorded measurement is repeated: none."""
        return ()

    @torch.no_grad()
    def run(self, out: Path) -> dict[str, Estimate]:
        """The numbers, with 95 % intervals over images."""
        batches = DataLoader(self.images, batch_size=self.batch_size)
        z = torch.cat([self.tokenizer.encode(images.to(self.device)).mean.cpu().double() for images, _ in batches])
        deviations = (z - z.mean(dim=(0, 1))) / z.std(dim=(0, 1)).clamp_min(1e-12)  # (n, N, C)
        return {"example/largest": student_mean(deviations.abs().flatten(1).amax(dim=1))}
