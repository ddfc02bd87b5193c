"""Job `generate`: draws samples of a generator, shows them and compares them with real images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import torch

from ldbench.core.estimate import Estimate
from ldbench.core.generator import Generator
from ldbench.core.interfaces import Guidance, ImageData, Sampler
from ldbench.core.intervals import student_mean
from ldbench.core.pixels import PixelRule
from ldbench.core.strata import stratified_mean
from ldbench.core.tokenizer import Tokenizer
from ldbench.data.samples import SampleParts, write_pngs
from ldbench.io.files import write_json
from ldbench.jobs._batches import Samples
from ldbench.jobs._sample_comparison import compare_images, ratio_directions
from ldbench.jobs._sample_draws import SampleDraws
from ldbench.jobs._sample_labels import sample_labels
from ldbench.jobs._sample_parts import draw_parts
from ldbench.jobs._sample_sheet import write_sheet
from ldbench.jobs._set_metrics import SetEvaluator, validate_kept
from ldbench.metrics import adm_npz
from ldbench.results.saved_images import NOISE
from ldbench.runtime.device import PRECISIONS, Precision
from ldbench.sampling.path_geometry import GeometryRecorder, PathGeometry

SHEET = "samples.png"
IMAGES = "samples"  # a folder of classes
NPZ = "samples.npz"


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
    settings: ClassVar[tuple[str, ...]] = ("precision", "compile", "path_geometry")
    # the behavior before these settings existed
    plain: ClassVar[Mapping[str, Any]] = {"precision": "fp32", "compile": False, "path_geometry": False}

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
        path_geometry: bool,  # whether to measure the paths from noise to samples
        batch_size: int,
        part_size: int,
        num_processes: int,
        device: torch.device,
        save_images: bool,
        save_npz: bool,
    ):
        generator.check(sampler, guidance)
        sampler = GeometryRecorder(sampler) if path_geometry else sampler
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
        self.path_geometry = path_geometry
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
        for key in ("compile", "path_geometry"):
            if not isinstance(settings[key], bool):
                raise ValueError(f"job.{key} must be true or false, got {settings[key]!r}.")
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
        """Each metric on sets, with its 95 % interval where it has one, and on request the geometry of the paths.

        Writes the sheet `out/samples.png`, and the samples if requested.
        """
        parts = SampleParts(out / "parts", num_samples=self.num_samples, part_size=self.part_size)
        draw_parts(self.draws, parts, num_processes=self.num_processes, device=self.device)
        measured = self.paths(parts) if self.path_geometry else {}
        measured |= self.measure(parts, out / "shares")
        write_sheet(parts, self.y, out / SHEET)
        if self.save_images:
            self.save(parts, out)
        if self.save_npz:
            adm_npz.write(out / NPZ, (images for _, images in parts.read()), self.num_samples, labels=self.y)
        parts.remove()
        return measured

    def paths(self, parts: SampleParts) -> dict[str, Estimate]:
        """How straight and how short the paths from noise to samples are: means, with Student's interval over samples,
        within labels where these are balanced.
        """
        paths = PathGeometry(*parts.numbers().unbind(dim=1))
        return {
            f"path/{name}": stratified_mean(values, self.y) if self.balanced else student_mean(values)
            for name, values in asdict(paths).items()
        }

    def measure(self, parts: SampleParts, scratch: Path) -> dict[str, Estimate]:
        """Each metric of the samples against the reference, and what they are read by: the same metrics of real images
        that are not in the reference, the distances of a perfect generator, and how training images are told apart.
        """
        settings: dict[str, Any] = {
            "pixel_rule": self.pixel_rule,
            "batch_size": self.batch_size,
            "num_processes": self.num_processes,
        }
        return compare_images(
            self.sets,
            self.ratio_sets,
            Samples(parts, self.y, self.batch_size),
            self.data,
            strata=self.y if self.balanced else None,
            reference=self.reference,
            settings=settings,
            scratch=scratch,
        )

    def save(self, parts: SampleParts, out: Path) -> None:
        """Writes every sample as PNG, one folder per class, and what their noise was drawn from."""
        names = self.data.class_names if len(self.data.class_names) == self.generator.backbone.num_classes else None
        for indices, images in parts.read():
            labels = self.y[list(indices)].tolist()
            # the label behind the last class is that of samples without one
            classes = [names[y] if names and y < len(names) else f"{y:04d}" for y in labels]
            write_pngs(out / IMAGES, images, first=indices.start, classes=classes)
        latent = self.generator.backbone.latent
        drawn_from = {"seed": self.draws.seed, "num_tokens": latent.num_tokens, "channels": latent.channels}
        write_json(out / NOISE, drawn_from)
