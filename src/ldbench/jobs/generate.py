"""Job `generate`: what a generator makes of noise and labels, shown and held against real images."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from ldbench.core.generator import Generator
from ldbench.core.interfaces import Estimate, Guidance, ImageData, Sampler
from ldbench.core.pixels import PixelRule, from_uint8, sheet
from ldbench.core.tokenizer import Tokenizer
from ldbench.data.samples import SampleParts, write_pngs
from ldbench.io.files import atomic_write
from ldbench.jobs._batches import Samples
from ldbench.jobs._progress import progress
from ldbench.jobs._sample_draws import Draws
from ldbench.jobs._set_metrics import SetMeasures
from ldbench.metrics import adm_npz
from ldbench.runtime.device import PRECISIONS, Precision
from ldbench.runtime.workers import run_parallel, split_evenly

log = logging.getLogger(__name__)

SHEET = "samples.png"
IMAGES = "samples"  # a folder of classes
NPZ = "samples.npz"
SHOWN = 10  # classes, and samples of each


class Generate:
    """Draws samples, decodes them, and measures the set against reference images by the protocol's metrics on sets.

    A sample depends on the seed, its place and its label alone, so that neither batches nor an interruption show; what was drawn before one is kept.
    Chosen labels are drawn in turn, and shown: a set of a few classes is held against nothing.
    Raises ValueError for labels that the generator does not know, and for a generator of other classes than the images that it is held against.
    """

    name: ClassVar[str] = "generate"
    revision: ClassVar[int] = 1
    requires: ClassVar[frozenset[str]] = frozenset({"tokenizer", "generator"})
    settings: ClassVar[tuple[str, ...]] = ("precision", "compile")
    plain: ClassVar[Mapping[str, Any]] = {"precision": "fp32", "compile": False}  # what there was before the settings

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
        sets: SetMeasures | None,  # metrics on sets; None where the protocol asks for none
        reference: str,  # train, test or an .npz in ADM's layout
        pixel_rule: PixelRule,
        precision: Precision,  # of the network; latents are decoded in float32
        compile: bool,  # the network
        batch_size: int,
        part_size: int,
        num_processes: int,
        device: torch.device,
        save_images: bool,
        save_npz: bool,
    ):
        generator.check(sampler, guidance)
        measured = isinstance(labels, str)
        if measured and sets is not None and generator.backbone.num_classes != data.num_classes:
            raise ValueError(
                f"The generator knows {generator.backbone.num_classes} classes, and {data.name} has {data.num_classes}: its samples cannot be held "
                "against these images. Choose the data that it is of, or chosen labels such as job.labels=[0,1], which are shown only."
            )
        self.generator = generator
        self.data = data
        self.num_samples = num_samples
        self.sets = sets if measured else None
        self.higher_is_better = {} if self.sets is None else self.sets.higher_is_better("g")
        self.reference = reference
        self.pixel_rule = pixel_rule
        self.batch_size = batch_size
        self.part_size = part_size
        self.num_processes = num_processes
        self.device = device
        self.save_images = save_images
        self.save_npz = save_npz
        self.y = labels_of(labels, num_samples, num_classes=generator.backbone.num_classes, seed=sampling_seed)
        generator.backbone.validate_labels(self.y)
        self.draws = Draws(
            tokenizer, generator, sampler, guidance, sampling_seed, self.y, pixel_rule, precision, compile, batch_size
        )

    @staticmethod
    def check(settings: Mapping[str, Any]) -> None:
        """Raises ValueError for settings out of range."""
        if settings["precision"] not in PRECISIONS:
            raise ValueError(f"job.precision must be one of {', '.join(PRECISIONS)}, got {settings['precision']!r}.")
        if not isinstance(settings["compile"], bool):
            raise ValueError(f"job.compile must be true or false, got {settings['compile']!r}.")
        for key in ("batch_size", "part_size", "num_processes"):
            if not isinstance(settings[key], int) or settings[key] < 1:
                raise ValueError(f"job.{key} must be a whole number of at least 1, got {settings[key]!r}.")

    @staticmethod
    def output_files(settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The files in the folder of figures without which a known measurement is made again; a folder of images stands for all of them."""
        return (SHEET, *([IMAGES] if settings["save_images"] else []), *([NPZ] if settings["save_npz"] else []))

    def run(self, out: Path) -> dict[str, Estimate]:
        """Each metric on sets, with its 95 % interval where it has one. The sheet goes to `out/samples.png`, and the samples where asked for."""
        parts = SampleParts(out / "parts", num_samples=self.num_samples, part_size=self.part_size)
        self.draw(parts)
        measured = {} if self.sets is None else self.measure(parts, self.sets, out / "shares")
        self.show(parts, out)
        if self.save_images:
            self.save(parts, out)
        if self.save_npz:
            adm_npz.write(out / NPZ, (images for _, images in parts.read()), self.num_samples, labels=self.y)
        parts.remove()
        return measured

    def draw(self, parts: SampleParts) -> None:
        """Makes the parts that are missing."""
        missing, whole = parts.missing(), parts.ranges()
        if len(missing) < len(whole):
            log.info("Going on: %d of %d parts are drawn already.", len(whole) - len(missing), len(whole))
        done = self.num_samples - sum(map(len, missing))
        shares = split_evenly(missing, self.num_processes)
        work = partial(self.draws.make, parts)
        with progress("sampling", total=self.num_samples, done=done) as advance:
            if len(shares) == 1:
                work(missing, device=self.device, advance=advance)
            else:
                run_parallel(work, shares, device=self.device, advance=advance)

    def measure(self, parts: SampleParts, sets: SetMeasures, scratch: Path) -> dict[str, Estimate]:
        """Each metric of the samples against the reference, and the floors of distances: those of real held-out images to the reference.

        Where the held-out images are the reference, the floor is their distance to the training images.
        """
        samples = sets.see(Samples(parts, self.y, self.batch_size), num_processes=self.num_processes, scratch=scratch)
        asked = ("test", "train" if self.reference == "test" else self.reference)
        facts: dict[str, Any] = {
            "pixel_rule": self.pixel_rule,
            "batch_size": self.batch_size,
            "num_processes": self.num_processes,
        }
        real = {name: sets.held_against(self.data, name, **facts) for name in asked}
        found = dict(sets.measure(samples, real[self.reference], prefix="g", paired=False))
        return found | dict(sets.floors(*real.values(), prefix="g"))

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
        with atomic_write(out / SHEET) as scratch:
            Image.fromarray(picture.numpy()).save(scratch, format="PNG")

    def save(self, parts: SampleParts, out: Path) -> None:
        """Writes every sample as PNG, in folders of classes."""
        names = self.data.class_names if len(self.data.class_names) == self.generator.backbone.num_classes else None
        for places, images in parts.read():
            classes = [names[y] if names else f"{y:04d}" for y in self.y[list(places)].tolist()]
            write_pngs(out / IMAGES, images, first=places.start, classes=classes)


def labels_of(
    labels: str | Sequence[int], num_samples: int, *, num_classes: int, seed: int
) -> Tensor:  # (num_samples,)
    """The label of each sample: all classes in turn (balanced), drawn evenly (random), or the given ones in turn."""
    if labels == "random":
        return torch.randint(num_classes, (num_samples,), generator=torch.Generator().manual_seed(seed))
    classes = range(num_classes) if isinstance(labels, str) else labels
    return torch.tensor([classes[place % len(classes)] for place in range(num_samples)])
