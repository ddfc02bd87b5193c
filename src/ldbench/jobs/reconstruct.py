"""Job `reconstruct`: how well a tokenizer gives back the images of a split."""

import csv
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from einops import rearrange
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ldbench.core.estimates import mean_estimate
from ldbench.core.files import in_one_move, naming
from ldbench.core.pixels import PixelRule, from_uint8, sheet, to_uint8
from ldbench.core.protocols import Estimate, ImageData, ImageSet
from ldbench.core.seen import Seen
from ldbench.core.tokenizer import Tokenizer
from ldbench.jobs.passes import SetMeasures

TABLE = "images.csv"  # written last of what `save_images` asks for

Metric = Callable[[Tensor, Tensor], Tensor]  # uint8 images and reconstructions -> (B,) float64


class Reconstruct:
    """Encodes and decodes a whole split and averages each metric over its images; draws a sheet of worst, median and best.

    Pixels are measured as uint8 under `pixel_rule`. Sampled latents draw their noise by image, so that no batch size shows.
    With `save_images` every original and reconstruction is written as PNG, and a table of each image's figures beside them.
    A distance `fd` on the features of `digits` is `rfd_digits`; beside it stands how far the held-out images are from the training images.
    What the extractor sees in real images is kept, so that a next tokenizer is measured by one pass over its reconstructions alone.
    """

    name: ClassVar[str] = "reconstruct"
    revision: ClassVar[int] = 3
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
        workers: int,
        device: torch.device,
        save_images: bool,
    ):
        self.tokenizer = tokenizer
        self.data = data
        self.images = images
        self.names = names
        self.metrics = metrics
        self.sets = sets
        self.split = split
        self.pixel_rule = pixel_rule
        self.latent = latent
        self.seed = seed
        self.batch_size = batch_size
        self.workers = workers
        self.device = device
        self.save_images = save_images

    @staticmethod
    def check(settings: Mapping[str, Any]) -> None:
        """Raises ValueError for settings out of range."""
        if settings["batch_size"] < 1:
            raise ValueError(f"batch_size of the job must be at least 1, got {settings['batch_size']}.")

    @staticmethod
    def leaves(settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The files in the folder of figures without which a known measurement is made again."""
        return (TABLE,) if settings["save_images"] else ()

    def run(self, out: Path) -> dict[str, Estimate]:
        """The mean of each metric over the images and each metric on sets, with 95 % intervals; the sheet goes to `out/reconstructions.png`."""
        tokenizer = self.tokenizer.to(self.device).eval()
        out.mkdir(parents=True, exist_ok=True)
        values: dict[str, list[Tensor]] = {name: [] for name in self.metrics}
        for metric in self.metrics.values():
            if isinstance(metric, nn.Module):
                metric.to(self.device)
        watch = None if self.sets is None else self.sets.begin(len(self.images))
        errors = []
        done = 0
        loader = DataLoader(self.images, batch_size=self.batch_size, num_workers=self.workers)
        for images, labels in track(loader, "reconstructing", console=Console(stderr=True), disable=not sys.stderr.isatty()):
            recon = self.reconstruct(tokenizer, images, first=done)
            stored = to_uint8(images, self.pixel_rule)
            for name, metric in self.metrics.items():
                values[name].append(metric(stored, recon))
            if watch is not None:
                watch.update(done, recon, labels)
            errors.append((stored.double() - recon.double()).square().mean(dim=(1, 2, 3)))
            if self.save_images:
                self.save(stored, recon, self.names[done : done + len(images)], out)
            done += len(images)
        by_image = {name: torch.cat(parts) for name, parts in values.items()}
        if self.save_images:
            self.tabulate(by_image, out)
        self.draw(tokenizer, torch.cat(errors), out)
        found = {name: mean_estimate(numbers) for name, numbers in by_image.items()}
        return found if watch is None else found | self.measure(watch.finish())

    def measure(self, recon: Seen) -> dict[str, Estimate]:
        """Each metric of the reconstructions against their originals, and the floors of distances."""
        assert self.sets is not None
        real = {split: self.sets.reference(self.data, split, pixel_rule=self.pixel_rule, batch_size=self.batch_size) for split in self.splits()}
        found = dict(self.sets.measure(recon, real[self.split], prefix="r", paired=True))
        return found | dict(self.sets.floors(real["test"], real["train"], prefix="r"))

    def splits(self) -> list[Literal["train", "test", "all"]]:
        """The splits that reconstructions and floors are held against."""
        return ["train", "test"] if self.split != "all" else ["all", "train", "test"]

    def save(self, stored: Tensor, recon: Tensor, names: Sequence[str], out: Path) -> None:
        """Writes a batch to `out/originals/<name>.png` and `out/reconstructions/<name>.png`."""
        for folder, images in (("originals", stored), ("reconstructions", recon)):
            for image, name in zip(images, names, strict=True):
                path = out / folder / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                with naming(path):
                    Image.fromarray(rearrange(image, "c h w -> h w c").numpy()).save(path)

    def tabulate(self, by_image: Mapping[str, Tensor], out: Path) -> None:
        """Writes each image's figures to `out/images.csv`, in one move."""
        with in_one_move(out / TABLE) as scratch, scratch.open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["image", *by_image])
            table.writerows(zip(self.names, *(numbers.tolist() for numbers in by_image.values()), strict=True))

    @torch.no_grad()
    def reconstruct(
        self,
        tokenizer: Tokenizer,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
        *,
        first: int,  # the place of images[0] in the split
    ) -> Tensor:  # (B, 3, H, W) uint8
        posterior = tokenizer.encode(images.to(self.device))
        z = posterior.mean
        if self.latent == "sample":
            noise = [torch.randn(z.shape[1:], generator=torch.Generator().manual_seed(self.seed + first + i)) for i in range(len(z))]
            z = posterior.sample(eps=torch.stack(noise).to(z))
        return to_uint8(tokenizer.decode(z).float().cpu(), self.pixel_rule)

    def draw(self, tokenizer: Tokenizer, errors: Tensor, out: Path) -> None:
        """Originals above reconstructions: four of the worst, of the median and of the best images."""
        order = errors.argsort(descending=True).tolist()
        middle = max(0, len(order) // 2 - 2)
        shown = list(dict.fromkeys([*order[:4], *order[middle : middle + 4], *order[-4:]]))
        images = torch.stack([self.images[place][0] for place in shown])
        recon = torch.cat([self.reconstruct(tokenizer, images[i : i + 1], first=place) for i, place in enumerate(shown)])
        picture = rearrange(sheet([images, from_uint8(recon)]), "c h w -> h w c")
        with in_one_move(out / "reconstructions.png") as scratch:
            Image.fromarray(picture.numpy()).save(scratch, format="PNG")
