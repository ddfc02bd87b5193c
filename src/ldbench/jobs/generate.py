"""Job `generate`: draws samples of a generator, shows them and compares them with real images."""

import logging
from collections.abc import Callable, Mapping, Sequence
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
from ldbench.jobs._sample_comparison import compare_on_extractors, compare_samples, ratio_directions
from ldbench.jobs._sample_draws import SampleDraws
from ldbench.jobs._set_metrics import SetEvaluator, validate_kept
from ldbench.metrics import adm_npz
from ldbench.runtime.device import PRECISIONS, Precision
from ldbench.runtime.progress import progress
from ldbench.runtime.workers import run_parallel, split_evenly

log = logging.getLogger(__name__)

SHEET = "samples.png"
IMAGES = "samples"  # a folder of classes
NPZ = "samples.npz"
NUM_SHOWN = 10  # classes on the sheet, and samples of each


class Generate:
    """Draws samples, decodes them, and compares the set with reference images by the protocol's metrics on sets.

    A sample depends only on the seed, its index and its label, so that neither the batch size nor an interruption
    matters; samples drawn before an interruption are reused. For a list of labels, samples are only shown: a set of a
    few classes is not compared. Raises ValueError for labels that the generator does not have, and for a generator with
    other classes than the images it is compared with.
    """

    name: ClassVar[str] = "generate"
    revision: ClassVar[int] = 2
    requires: ClassVar[frozenset[str]] = frozenset({"tokenizer", "generator"})
    settings: ClassVar[tuple[str, ...]] = ("precision", "compile")
    # the behavior before these settings existed
    plain: ClassVar[Mapping[str, Any]] = {"precision": "fp32", "compile": False}

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
        sets: SetEvaluator | None,  # metrics on sets; None where the protocol has none
        ratio_sets: Mapping[str, Callable[[], SetEvaluator]],  # by extractor, on which samples are compared by FDr
        reference: str,  # train, test or an .npz in ADM's layout
        pixel_rule: PixelRule,
        precision: Precision,  # of the network; latents are decoded in float32
        compile: bool,  # whether to compile the network
        batch_size: int,
        part_size: int,
        num_processes: int,
        device: torch.device,
        save_images: bool,
        save_npz: bool,
    ):
        generator.check(sampler, guidance)
        measured = isinstance(labels, str)
        self.balanced = labels == "balanced"
        if measured and sets is not None and generator.backbone.num_classes != data.num_classes:
            raise ValueError(
                f"The generator has {generator.backbone.num_classes} classes, and {data.name} has {data.num_classes}: "
                "its samples cannot be compared "
                "with these images. Choose the generator's data, or a list of labels such as job.labels=[0,1], whose "
                "samples are only shown."
            )
        if measured and sets is not None:
            validate_kept(sets.metrics, len(data.train), sets.kept)
        self.generator = generator
        self.data = data
        self.num_samples = num_samples
        self.sets = sets if measured else None
        self.ratio_sets = ratio_sets if measured else {}
        self.higher_is_better = ratio_directions(self.ratio_sets)
        self.higher_is_better |= {} if self.sets is None else self.sets.higher_is_better("g")
        self.reference = reference
        self.pixel_rule = pixel_rule
        self.batch_size = batch_size
        self.part_size = part_size
        self.num_processes = num_processes
        self.device = device
        self.save_images = save_images
        self.save_npz = save_npz
        self.y = sample_labels(labels, num_samples, num_classes=generator.backbone.num_classes, seed=sampling_seed)
        generator.backbone.validate_labels(self.y)
        self.draws = SampleDraws(
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
        """The files in the output folder without which a recorded measurement is repeated; a folder of images stands
        for all of them.
        """
        return (SHEET, *([IMAGES] if settings["save_images"] else []), *([NPZ] if settings["save_npz"] else []))

    def run(self, out: Path) -> dict[str, Estimate]:
        """Each metric on sets, with its 95 % interval where it has one.

        Writes the sheet `out/samples.png`, and the samples if requested.
        """
        parts = SampleParts(out / "parts", num_samples=self.num_samples, part_size=self.part_size)
        self.draw(parts)
        measured = self.measure(parts, out / "shares")
        self.show(parts, out)
        if self.save_images:
            self.save(parts, out)
        if self.save_npz:
            adm_npz.write(out / NPZ, (images for _, images in parts.read()), self.num_samples, labels=self.y)
        parts.remove()
        return measured

    def draw(self, parts: SampleParts) -> None:
        """Draws the missing parts."""
        missing, parts_total = parts.missing(), parts.ranges()
        if len(missing) < len(parts_total):
            log.info("Resuming: %d of %d parts are already drawn.", len(parts_total) - len(missing), len(parts_total))
        done = self.num_samples - sum(map(len, missing))
        shares = split_evenly(missing, self.num_processes)
        work = partial(self.draws.draw, parts)
        with progress("sampling", total=self.num_samples, done=done) as advance:
            if len(shares) == 1:
                work(missing, device=self.device, advance=advance)
            else:
                run_parallel(work, shares, device=self.device, advance=advance)

    def measure(self, parts: SampleParts, scratch: Path) -> dict[str, Estimate]:
        """Each metric of the samples against the reference, and what they are read by: the same metrics of real images
        that are not in the reference, the distances of a perfect generator, and how training images are told apart.
        """
        images, strata = Samples(parts, self.y, self.batch_size), self.y if self.balanced else None
        compared: dict[str, Any] = {"reference": self.reference, "balanced": self.balanced}
        compared["settings"] = {
            "pixel_rule": self.pixel_rule,
            "batch_size": self.batch_size,
            "num_processes": self.num_processes,
        }
        found = {}
        if self.sets is not None:
            samples = self.sets.sample_features(
                images, strata=strata, num_processes=self.num_processes, scratch=scratch
            )
            found = compare_samples(self.sets, samples, self.data, **compared)
        return found | compare_on_extractors(
            self.ratio_sets, images, self.data, strata=strata, scratch=scratch, **compared
        )

    def show(self, parts: SampleParts, out: Path) -> None:
        """Writes a sheet of the first samples of the first classes, one class per row."""
        rows: dict[int, list[Tensor]] = {label: [] for label in list(dict.fromkeys(self.y.tolist()))[:NUM_SHOWN]}
        for indices, images in parts.read():
            for index, image in zip(indices, images, strict=True):
                row = rows.get(int(self.y[index]), [])
                if len(row) < NUM_SHOWN:
                    row.append(image)
            if all(len(row) == NUM_SHOWN for row in rows.values()):
                break
        width = max(map(len, rows.values()))
        blank = torch.full_like(next(row[0] for row in rows.values() if row), 255)
        filled = [torch.stack(row + [blank] * (width - len(row))) for _, row in sorted(rows.items()) if row]
        picture = rearrange(sheet([from_uint8(row) for row in filled]), "c h w -> h w c")
        with atomic_write(out / SHEET) as scratch:
            Image.fromarray(picture.numpy()).save(scratch, format="PNG")

    def save(self, parts: SampleParts, out: Path) -> None:
        """Writes every sample as PNG, one folder per class."""
        names = self.data.class_names if len(self.data.class_names) == self.generator.backbone.num_classes else None
        for indices, images in parts.read():
            labels = self.y[list(indices)].tolist()
            # the label behind the last class is that of samples without one
            classes = [names[y] if names and y < len(names) else f"{y:04d}" for y in labels]
            write_pngs(out / IMAGES, images, first=indices.start, classes=classes)


def sample_labels(
    labels: str | Sequence[int], num_samples: int, *, num_classes: int, seed: int
) -> Tensor:  # (num_samples,)
    """The label of each sample: all classes in turn (balanced), uniformly random (random), or the listed ones in
    turn.
    """
    if labels == "random":
        return torch.randint(num_classes, (num_samples,), generator=torch.Generator().manual_seed(seed))
    classes = range(num_classes) if isinstance(labels, str) else labels
    return torch.tensor([classes[index % len(classes)] for index in range(num_samples)])
