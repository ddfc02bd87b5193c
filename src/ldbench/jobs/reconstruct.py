"""Job `reconstruct`: how well a tokenizer reconstructs the images of a split."""

import csv
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from ldbench.core.estimate import Estimate
from ldbench.core.interfaces import ImageData, ImageSet
from ldbench.core.intervals import student_mean
from ldbench.core.pixels import PixelRule, from_uint8, sheet
from ldbench.core.tokenizer import Tokenizer
from ldbench.io.files import atomic_write
from ldbench.jobs._reconstruction_pass import Metric, ReconstructionPass, ReconstructionResults
from ldbench.jobs._set_metrics import SetEvaluator, ranked
from ldbench.jobs._sharded import run_sharded
from ldbench.metrics.feature_set import FeatureAccumulator, FeatureSet
from ldbench.results.saved_images import TABLE
from ldbench.runtime.progress import progress
from ldbench.runtime.workers import split_evenly


class Reconstruct:
    """Encodes and decodes a whole split and averages each metric over its images; draws a sheet of the worst, median
    and best images.

    Pixels are measured as uint8 under `pixel_rule`. Sampled latents draw their noise by image, so that the batch size
    does not matter. `save_images` writes every original and reconstruction as PNG, and a table of each image's metrics.
    A distance `fd` on the features of `digits` is named `rfd_digits`; that of perfect reconstructions is 0.
    Features of real images are cached, so that the next tokenizer needs one pass over its reconstructions only.
    """

    name: ClassVar[str] = "reconstruct"
    revision: ClassVar[int] = 4
    requires: ClassVar[frozenset[str]] = frozenset({"tokenizer"})
    settings: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        data: ImageData,
        images: ImageSet,
        names: Sequence[str],  # of each image, for its files and its row
        metrics: Mapping[str, Metric],
        sets: SetEvaluator | None,  # metrics on sets; None where the protocol has none
        split: Literal["train", "test", "all"],  # of `images`
        pixel_rule: PixelRule,
        latent: str,
        seed: int,
        batch_size: int,
        num_processes: int,
        workers: int,
        device: torch.device,
        save_images: bool,
    ):
        self.data = data
        self.images = images
        self.names = names
        self.metrics = metrics
        self.sets = sets
        self.higher_is_better = ranked(metrics) | ({} if sets is None else sets.higher_is_better("r"))
        self.split = split
        self.pixel_rule = pixel_rule
        self.batch_size = batch_size
        self.num_processes = num_processes
        self.device = device
        self.save_images = save_images
        self.per_image: Mapping[str, Tensor] = {}  # of the last run
        self.reconstruction = ReconstructionPass(
            tokenizer=tokenizer,
            images=images,
            names=names,
            metrics=metrics,
            extractor=None if sets is None else sets.extractor,
            requires=frozenset() if sets is None else sets.requires,
            pixel_rule=pixel_rule,
            latent=latent,
            seed=seed,
            batch_size=batch_size,
            workers=workers,
        )

    @staticmethod
    def check(settings: Mapping[str, Any]) -> None:
        """Raises ValueError for settings out of range."""
        for key in ("batch_size", "num_processes"):
            if settings[key] < 1:
                raise ValueError(f"job.{key} must be at least 1, got {settings[key]}.")

    @staticmethod
    def output_files(settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The files in the output folder without which a recorded measurement is repeated."""
        return (TABLE,) if settings["save_images"] else ()

    def run(self, out: Path) -> dict[str, Estimate]:
        """The mean of each metric over the images and each metric on sets, with 95 % intervals; writes the sheet
        `out/reconstructions.png`.
        """
        out.mkdir(parents=True, exist_ok=True)
        results = self.results(out)
        by_image = {name: torch.cat([part.values[name] for part in results]) for name in self.metrics}
        self.per_image = by_image
        if self.save_images:
            self.tabulate(by_image, out)
        self.draw(torch.cat([part.errors for part in results]), out)
        means = {name: student_mean(values) for name, values in by_image.items()}
        return means if self.sets is None else means | self.measure(self.sets, self.recon_features(results))

    def results(self, out: Path) -> list[ReconstructionResults]:
        """The results of all images, in order: in one piece, or one for each process."""
        folder = out if self.save_images else None
        shares = split_evenly(self.reconstruction.ranges(), self.num_processes)
        with progress("reconstructing", total=len(self.images), done=0) as advance:
            if len(shares) == 1:
                return [self.reconstruction.run(folder, *shares, device=self.device, advance=advance)]
            work = partial(self.reconstruction.run_share, folder)
            shards = run_sharded(work, shares, device=self.device, advance=advance, scratch=out / "shares")
            return [ReconstructionResults.from_tensors(tensors) for tensors in shards]

    def recon_features(self, results: Sequence[ReconstructionResults]) -> FeatureSet:
        """The features of the reconstructions; stores those of all images where metrics require it."""
        accumulator = FeatureAccumulator(len(self.images), self.reconstruction.requires, len(self.images))
        for part in results:
            accumulator.merge_tensors(part.features)
        return accumulator.finish()

    def measure(self, sets: SetEvaluator, recon: FeatureSet) -> dict[str, Estimate]:
        """Each metric of the reconstructions against their originals."""
        originals = sets.split_features(
            self.data,
            self.split,
            pixel_rule=self.pixel_rule,
            batch_size=self.batch_size,
            num_processes=self.num_processes,
        )
        return dict(sets.measure(recon, originals, prefix="r", paired=True))

    def tabulate(self, by_image: Mapping[str, Tensor], out: Path) -> None:
        """Writes each image's metrics to `out/images.csv`, atomically."""
        with atomic_write(out / TABLE) as scratch, scratch.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["image", *by_image])
            table.writerows(zip(self.names, *(values.tolist() for values in by_image.values()), strict=True))

    def draw(self, errors: Tensor, out: Path) -> None:
        """Draws originals above reconstructions: four of the worst, of the median and of the best images."""
        order = errors.argsort(descending=True).tolist()
        middle = max(0, len(order) // 2 - 2)
        shown = list(dict.fromkeys([*order[:4], *order[middle : middle + 4], *order[-4:]]))
        images = torch.stack([self.images[index][0] for index in shown])
        self.reconstruction.tokenizer.to(self.device).eval()
        recon = [
            self.reconstruction.reconstruct(images[i : i + 1], first=index, device=self.device)
            for i, index in enumerate(shown)
        ]
        picture = rearrange(sheet([images, from_uint8(torch.cat(recon))]), "c h w -> h w c")
        with atomic_write(out / "reconstructions.png") as scratch:
            Image.fromarray(picture.numpy()).save(scratch, format="PNG")
