"""Job `generate`: what a generator makes of noise and labels, shown and held against real images."""

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from einops import rearrange
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader

from ldbench.analysis.probe import wilson
from ldbench.core.pixels import PixelRule, from_uint8, sheet, to_uint8
from ldbench.core.protocols import Distance, Estimate, Extractor, Guidance, ImageData, ImageSet, Sampler
from ldbench.core.tokenizer import Tokenizer
from ldbench.data.samples import SampleParts, write_npz, write_pngs
from ldbench.generator import Generator
from ldbench.sampling.noise import NoiseStream

log = logging.getLogger(__name__)

SHEET = "samples.png"
IMAGES = "samples"  # a folder of classes
NPZ = "samples.npz"
SHOWN = 10  # classes, and samples of each


class Generate:
    """Draws samples, decodes them, and measures the set: each distance of its features to the reference images, and how often a classifier
    sees the label that a sample was made for.

    A sample depends on the seed, its place and its label alone, so that neither batches nor an interruption show; what was drawn before one is kept.
    Chosen labels are drawn in turn, and shown: a set of a few classes is held against nothing.
    Raises ValueError for labels that the generator does not know, and for a generator of other classes than the images that it is held against.
    """

    name: ClassVar[str] = "generate"
    revision: ClassVar[int] = 1
    settings: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        generator: Generator,
        sampler: Sampler,
        guidance: Guidance,
        sampling_seed: int,
        data: ImageData,
        num_samples: int,
        labels: str | Sequence[int],
        extractors: Mapping[str, Extractor],
        distances: Mapping[str, Distance],
        reference: str,
        pixel_rule: PixelRule,
        batch_size: int,
        part_size: int,
        workers: int,
        device: torch.device,
        save_images: bool,
        save_npz: bool,
    ):
        generator.check(sampler, guidance)
        measured = isinstance(labels, str)
        if measured and extractors and generator.backbone.num_classes != data.num_classes:
            raise ValueError(
                f"The generator knows {generator.backbone.num_classes} classes, and {data.name} has {data.num_classes}: its samples cannot be held "
                "against these images. Choose the data that it is of, or chosen labels such as job.labels=[0,1], which are shown only."
            )
        self.tokenizer = tokenizer
        self.generator = generator
        self.sampler = sampler
        self.guidance = guidance
        self.sampling_seed = sampling_seed
        self.data = data
        self.num_samples = num_samples
        self.extractors = extractors if measured else {}
        self.distances = distances
        self.reference = reference
        self.pixel_rule = pixel_rule
        self.batch_size = batch_size
        self.part_size = part_size
        self.workers = workers
        self.device = device
        self.save_images = save_images
        self.save_npz = save_npz
        self.y = labels_of(labels, num_samples, num_classes=generator.backbone.num_classes, seed=sampling_seed)
        generator.backbone.check_labels(self.y)

    @staticmethod
    def check(settings: Mapping[str, Any]) -> None:
        """Raises ValueError for settings out of range."""
        for key in ("batch_size", "part_size"):
            if not isinstance(settings[key], int) or settings[key] < 1:
                raise ValueError(f"job.{key} must be a whole number of at least 1, got {settings[key]!r}.")

    @staticmethod
    def leaves(settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The files in the folder of figures without which a known measurement is made again; a folder of images stands for all of them."""
        return (SHEET, *([IMAGES] if settings["save_images"] else []), *([NPZ] if settings["save_npz"] else []))

    def run(self, out: Path) -> dict[str, Estimate]:
        """The distances and the classifier's share of hits; the sheet goes to `out/samples.png`, and the samples where they are asked for."""
        parts = SampleParts(out / "parts", num_samples=self.num_samples, part_size=self.part_size)
        self.draw(parts)
        measured: dict[str, Estimate] = {}
        for name, extractor in self.extractors.items():
            measured |= self.measure(parts, name, extractor)
        self.show(parts, out)
        if self.save_images:
            self.save(parts, out)
        if self.save_npz:
            write_npz(out / NPZ, parts, self.y)
        parts.remove()
        return measured

    def draw(self, parts: SampleParts) -> None:
        """Makes the parts that are missing."""
        missing, whole = parts.missing(), parts.ranges()
        if len(missing) < len(whole):
            log.info("Going on: %d of %d parts are drawn already.", len(whole) - len(missing), len(whole))
        self.generator.to(self.device).eval()
        self.tokenizer.to(self.device).eval()
        for places in track(missing, "sampling", console=Console(stderr=True), disable=not sys.stderr.isatty()):
            batches = [places[first : first + self.batch_size] for first in range(0, len(places), self.batch_size)]
            parts.write(places, torch.cat([self.images(batch) for batch in batches]))

    @torch.no_grad()
    def images(self, places: range) -> Tensor:  # (B, 3, H, W) uint8
        """The samples of some places."""
        latent, stream = self.generator.backbone.latent, NoiseStream(self.sampling_seed, places)
        noise = stream.normal(0, (len(places), latent.num_tokens, latent.channels)).to(self.device)
        z = self.generator.sample(noise, self.y[list(places)].to(self.device), self.sampler, self.guidance, stream=stream)
        return to_uint8(self.tokenizer.decode(z).float().cpu(), self.pixel_rule)

    def measure(self, parts: SampleParts, name: str, extractor: Extractor) -> dict[str, Estimate]:
        """What an extractor tells of the samples: distances beside their floors, that of real held-out images, and hits of its classifier."""
        extractor.to(self.device)
        features, hits = [], 0
        for places, images in parts.read():
            features.append(self.seen(extractor, images))
            if hasattr(extractor, "classes"):
                hits += int((extractor.classes(images.to(self.device)).cpu() == self.y[list(places)]).sum())
        train, test = self.features_of(extractor, self.data.train), self.features_of(extractor, self.data.test)
        reference = {"train": train, "test": test}[self.reference]
        found = {}
        for distance, measure in self.distances.items():
            found[f"g{distance}_{name}"] = Estimate(measure(torch.cat(features), reference))
            found[f"g{distance}_{name}_floor"] = Estimate(measure(test, train))
        if hasattr(extractor, "classes"):
            found[f"class_accuracy_{name}"] = Estimate(hits / self.num_samples, *wilson(hits, self.num_samples))
        return found

    def features_of(self, extractor: Extractor, images: ImageSet) -> Tensor:  # (n, D)
        """What an extractor sees in the images of a whole split."""
        loader = DataLoader(images, batch_size=self.batch_size, num_workers=self.workers)
        return torch.cat([self.seen(extractor, to_uint8(batch, self.pixel_rule)) for batch, _ in loader])

    def seen(
        self,
        extractor: Extractor,
        images: Tensor,  # (B, 3, H, W) uint8
    ) -> Tensor:  # (B, D)
        """What an extractor sees in a batch."""
        return extractor.features(images.to(self.device)).cpu()

    def show(self, parts: SampleParts, out: Path) -> None:
        """The first samples of the first classes, one class a row, none chosen by hand."""
        rows: dict[int, list[Tensor]] = {label: [] for label in list(dict.fromkeys(self.y.tolist()))[:SHOWN]}
        for places, images in parts.read():
            for place, image in zip(places, images, strict=True):
                row = rows.get(int(self.y[place]), [])
                if len(row) < SHOWN:
                    row.append(image)
            if all(len(row) == SHOWN for row in rows.values()):
                break
        width = max(map(len, rows.values()))
        blank = torch.full_like(next(row[0] for row in rows.values() if row), 255)
        filled = [torch.stack(row + [blank] * (width - len(row))) for _, row in sorted(rows.items()) if row]
        picture = rearrange(sheet([from_uint8(row) for row in filled]), "c h w -> h w c")
        Image.fromarray(picture.numpy()).save(out / SHEET)

    def save(self, parts: SampleParts, out: Path) -> None:
        """Writes every sample as PNG, in folders of classes."""
        names = self.data.class_names if len(self.data.class_names) == self.generator.backbone.num_classes else None
        for places, images in parts.read():
            classes = [names[y] if names else f"{y:04d}" for y in self.y[list(places)].tolist()]
            write_pngs(out / IMAGES, images, first=places.start, classes=classes)


def labels_of(labels: str | Sequence[int], num_samples: int, *, num_classes: int, seed: int) -> Tensor:  # (num_samples,)
    """The label of each sample: all classes in turn (balanced), drawn evenly (random), or the given ones in turn."""
    if labels == "random":
        return torch.randint(num_classes, (num_samples,), generator=torch.Generator().manual_seed(seed))
    classes = range(num_classes) if isinstance(labels, str) else labels
    return torch.tensor([classes[place % len(classes)] for place in range(num_samples)])
