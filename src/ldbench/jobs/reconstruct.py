"""Job `reconstruct`: how well a tokenizer gives back the images of a split."""

import csv
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from ldbench.core.interfaces import Estimate, ImageData, ImageSet
from ldbench.core.intervals import normal_mean
from ldbench.core.pixels import PixelRule, from_uint8, sheet
from ldbench.core.tokenizer import Tokenizer
from ldbench.io.files import atomic_write
from ldbench.jobs._progress import progress
from ldbench.jobs._reconstruction_pass import Compared, Comparing, Metric
from ldbench.jobs._set_metrics import SetMeasures, ranked
from ldbench.jobs._sharded import run_sharded
from ldbench.metrics.feature_set import FeatureAccumulator, FeatureSet
from ldbench.runtime.workers import split_evenly

TABLE = "images.csv"  # written last of what `save_images` asks for


class Reconstruct:
    """Encodes and decodes a whole split and averages each metric over its images; draws a sheet of worst, median and best.

    Pixels are measured as uint8 under `pixel_rule`. Sampled latents draw their noise by image, so that no batch size shows.
    With `save_images` every original and reconstruction is written as PNG, and a table of each image's figures beside them.
    A distance `fd` on the features of `digits` is `rfd_digits`; beside it stands how far the held-out images are from the training images.
    What the extractor sees in real images is kept, so that a next tokenizer is measured by one pass over its reconstructions alone.
    """

    name: ClassVar[str] = "reconstruct"
    revision: ClassVar[int] = 3
    requires: ClassVar[frozenset[str]] = frozenset({"tokenizer"})
    settings: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        data: ImageData,
        images: ImageSet,
        names: Sequence[str],  # one for each image, for its files and its row
        metrics: Mapping[str, Metric],
        sets: SetMeasures | None,  # metrics on sets; None where the protocol asks for none
        split: Literal["train", "test", "all"],  # that `images` are
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
        self.comparing = Comparing(
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
                raise ValueError(f"{key} of the job must be at least 1, got {settings[key]}.")

    @staticmethod
    def output_files(settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The files in the folder of figures without which a known measurement is made again."""
        return (TABLE,) if settings["save_images"] else ()

    def run(self, out: Path) -> dict[str, Estimate]:
        """The mean of each metric over the images and each metric on sets, with 95 % intervals; the sheet goes to `out/reconstructions.png`."""
        out.mkdir(parents=True, exist_ok=True)
        found = self.compared(out)
        by_image = {name: torch.cat([part.values[name] for part in found]) for name in self.metrics}
        if self.save_images:
            self.tabulate(by_image, out)
        self.draw(torch.cat([part.errors for part in found]), out)
        means = {name: normal_mean(numbers) for name, numbers in by_image.items()}
        return means if self.sets is None else means | self.measure(self.sets, self.seen(found))

    def compared(self, out: Path) -> list[Compared]:
        """What became of the images, in the order of their places: all of them, or a share of each process."""
        folder = out if self.save_images else None
        shares = split_evenly(self.comparing.places(), self.num_processes)
        with progress("reconstructing", total=len(self.images), done=0) as advance:
            if len(shares) == 1:
                return [self.comparing.compare(folder, *shares, device=self.device, advance=advance)]
            work = partial(self.comparing.compare_apart, folder)
            told = run_sharded(work, shares, device=self.device, advance=advance, scratch=out / "shares")
            return [Compared.of_tensors(tensors) for tensors in told]

    def seen(self, found: Sequence[Compared]) -> FeatureSet:
        """What the extractor saw in the reconstructions, all of whose features are kept where metrics need them."""
        gathering = FeatureAccumulator(len(self.images), self.comparing.requires, len(self.images))
        for part in found:
            gathering.merge_tensors(part.gathered)
        return gathering.finish()

    def measure(self, sets: SetMeasures, recon: FeatureSet) -> dict[str, Estimate]:
        """Each metric of the reconstructions against their originals, and the floors of distances."""
        facts: dict[str, Any] = {
            "pixel_rule": self.pixel_rule,
            "batch_size": self.batch_size,
            "num_processes": self.num_processes,
        }
        real = {split: sets.reference(self.data, split, **facts) for split in self.splits()}
        found = dict(sets.measure(recon, real[self.split], prefix="r", paired=True))
        return found | dict(sets.floors(real["test"], real["train"], prefix="r"))

    def splits(self) -> list[Literal["train", "test", "all"]]:
        """The splits that reconstructions and floors are held against."""
        return ["train", "test"] if self.split != "all" else ["all", "train", "test"]

    def tabulate(self, by_image: Mapping[str, Tensor], out: Path) -> None:
        """Writes each image's figures to `out/images.csv`, in one move."""
        with atomic_write(out / TABLE) as scratch, scratch.open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["image", *by_image])
            table.writerows(zip(self.names, *(numbers.tolist() for numbers in by_image.values()), strict=True))

    def draw(self, errors: Tensor, out: Path) -> None:
        """Originals above reconstructions: four of the worst, of the median and of the best images."""
        order = errors.argsort(descending=True).tolist()
        middle = max(0, len(order) // 2 - 2)
        shown = list(dict.fromkeys([*order[:4], *order[middle : middle + 4], *order[-4:]]))
        images = torch.stack([self.images[place][0] for place in shown])
        self.comparing.tokenizer.to(self.device).eval()
        recon = [
            self.comparing.reconstruct(images[i : i + 1], first=place, device=self.device)
            for i, place in enumerate(shown)
        ]
        picture = rearrange(sheet([images, from_uint8(torch.cat(recon))]), "c h w -> h w c")
        with atomic_write(out / "reconstructions.png") as scratch:
            Image.fromarray(picture.numpy()).save(scratch, format="PNG")
