"""Job `guidance`: the best guidance of a generator, found on few samples and measured on fresh ones."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from ldbench.core.estimate import Estimate
from ldbench.core.generator import Generator
from ldbench.core.interfaces import ImageData
from ldbench.core.pixels import PixelRule
from ldbench.core.tokenizer import Tokenizer
from ldbench.data.samples import SampleParts
from ldbench.io.files import write_json
from ldbench.jobs._batches import Samples
from ldbench.jobs._guidance_report import describe_chosen, describe_surface, rungs_for_figure
from ldbench.jobs._guidance_search import GuidancePoint, GuidanceSearch, grid_of
from ldbench.jobs._guidance_settings import check_search, chosen_averages
from ldbench.jobs._sample_comparison import compare_images, ratio_directions
from ldbench.jobs._sample_draws import SampleDraws
from ldbench.jobs._sample_labels import sample_labels
from ldbench.jobs._sample_parts import draw_parts
from ldbench.jobs._sample_sheet import write_sheet
from ldbench.jobs._sampling_variants import SamplingVariants
from ldbench.jobs._set_metrics import SetEvaluator, validate_kept
from ldbench.results.guidance_figure import draw
from ldbench.runtime.device import PRECISIONS, Precision

log = logging.getLogger(__name__)

SURFACE, FIGURE, SHEET = "surface.json", "surface.png", "samples.png"
SEARCH_SEEDS = 2**62  # above all seeds that people choose: the search's noise is never that of the measured samples


class TuneGuidance:
    """Searches guidance scale, interval, steps and weight average, and measures the best setting on fresh noise.

    The search is by successive halving on the protocol's metric `target`; the result is what job `generate` measures at
    the chosen setting, to the last bit, so that no sample that chose a setting also measures it. What the search cost
    is reported in network calls. Averages that are null stand for all that the artifact holds. An interruption loses at
    most one part of samples. Raises ValueError for a target that the protocol does not measure or that has no better
    direction, for averages that the artifact does not hold, and for a generator that cannot be guided.
    """

    name: ClassVar[str] = "guidance"
    revision: ClassVar[int] = 1
    requires: ClassVar[frozenset[str]] = frozenset({"tokenizer", "generator"})
    settings: ClassVar[tuple[str, ...]] = ("precision", "compile")  # the search is in the protocol
    # as of job `generate`, beside whose numbers these stand
    plain: ClassVar[Mapping[str, Any]] = {"precision": "fp32", "compile": False}
    searched: ClassVar[tuple[str, ...]] = ("target", "scales", "intervals", "steps", "averages", "rungs", "keep")

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        sampling_variants: SamplingVariants,
        sampling_seed: int,
        data: ImageData,
        num_samples: int,
        labels: str | Sequence[int],
        sets: SetEvaluator,
        ratio_sets: Mapping[str, Callable[[], SetEvaluator]],  # by extractor, on which samples are compared by FDr
        reference: str,  # train, test or an .npz in ADM's layout
        pixel_rule: PixelRule,
        target: str,  # of the protocol's metrics on sets
        scales: Sequence[float],
        intervals: Sequence[Sequence[float]],
        steps: Sequence[int | None],
        averages: Sequence[float] | None,
        rungs: Sequence[int],
        keep: float,
        precision: Precision,
        compile: bool,
        batch_size: int,
        part_size: int,
        num_processes: int,
        device: torch.device,
    ):
        self.tokenizer = tokenizer
        self.variants = sampling_variants
        self.sampling_seed = sampling_seed
        self.data = data
        self.num_samples = num_samples
        self.balanced = labels == "balanced"
        self.labels = labels
        self.sets = sets
        self.ratio_sets = ratio_sets
        self.reference = reference
        self.pixel_rule = pixel_rule
        self.target = target
        self.rungs = rungs
        self.keep = keep
        self.precision = precision
        self.compile = compile
        self.batch_size = batch_size
        self.part_size = part_size
        self.num_processes = num_processes
        self.device = device
        self.higher_is_better = ratio_directions(ratio_sets) | sets.higher_is_better("g")
        self.points = grid_of(
            chosen_averages(averages, sampling_variants.averages),
            list(steps),
            [(float(low), float(high)) for low, high in intervals],
            list(scales),
        )
        self._loaded: dict[float | None, Generator] = {}
        for point in self.points:
            generator = self.generator(point.average)
            generator.check(self.variants.build_sampler(point.steps), self.guidance(point))
        classes = generator.backbone.num_classes
        if classes != data.num_classes:
            raise ValueError(
                f"The generator has {classes} classes, and {data.name} has {data.num_classes}: its samples cannot be "
                "compared with these images. Choose the generator's data."
            )
        validate_kept(sets.metrics, len(data.train), sets.kept)

    @staticmethod
    def check(settings: Mapping[str, Any]) -> None:
        """Raises ValueError for settings out of range."""
        check_search(settings)
        if settings["precision"] not in PRECISIONS:
            raise ValueError(f"job.precision must be one of {', '.join(PRECISIONS)}, got {settings['precision']!r}.")
        if not isinstance(settings["compile"], bool):
            raise ValueError(f"job.compile must be true or false, got {settings['compile']!r}.")
        for key in ("batch_size", "part_size", "num_processes"):
            if not isinstance(settings[key], int) or settings[key] < 1:
                raise ValueError(f"job.{key} must be a whole number of at least 1, got {settings[key]!r}.")

    @staticmethod
    def check_protocol(settings: Mapping[str, Any], distribution: Mapping[str, Any], labels: object) -> None:
        """Raises ValueError for a target that the protocol's metrics on sets, given as classes by name, do not allow,
        and for labels of which samples are only shown.
        """
        target, metric = settings["target"], distribution.get(settings["target"])
        better = {
            name: kind for name, kind in distribution.items() if getattr(kind, "higher_is_better", None) is not None
        }
        own = [name for name, kind in better.items() if getattr(kind, "compares", "reference") == "reference"]
        if metric is None or target not in own:
            raise ValueError(
                f"job.target={target} is none of the metrics that a search can go by. This protocol has "
                f"{', '.join(own) or 'none: choose one with an extractor, such as protocol=digits'}."
            )
        if not isinstance(labels, str):
            raise ValueError(
                f"labels={labels}: samples of a few classes are only shown. Set job.labels=balanced or random."
            )

    @staticmethod
    def output_files(settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The files in the output folder without which a recorded measurement is repeated."""
        return (SURFACE, FIGURE, SHEET)

    def run(self, out: Path) -> dict[str, Estimate]:
        """The metrics of the chosen setting, the setting, the surface of every rung, and what the search cost."""
        search = self.search(out / "search")
        rungs = search.run(self.points)
        chosen = rungs[-1].measured[0].point
        self.note_edges(chosen)
        metrics = self.measure(chosen, out)
        metrics |= describe_chosen(chosen, self.variants.averages[0])
        metrics |= {
            "guidance/search_calls": Estimate(float(search.num_calls())),
            "guidance/search_samples": Estimate(float(search.num_samples())),
            "guidance/calls_per_sample": Estimate(search.num_calls(chosen) / search.num_samples(chosen)),
        }
        metrics |= {
            f"guidance/n={rung.num_samples}/{found.point.name}": found.score
            for rung in rungs
            for found in rung.measured
        }
        name = self.sets.name(self.target, "g")
        write_json(out / SURFACE, describe_surface(rungs, target=name))
        draw(rungs_for_figure(rungs), out / FIGURE, target=name, data=self.data.name)
        search.remove()
        return metrics

    def search(self, folder: Path) -> GuidanceSearch:
        """The search, whose noise and labels are not those of the samples that are measured."""
        reference = self.sets.reference_features(
            self.data,
            self.reference,
            pixel_rule=self.pixel_rule,
            batch_size=self.batch_size,
            num_processes=self.num_processes,
        )
        seed = SEARCH_SEEDS + self.sampling_seed
        y = sample_labels(self.labels, self.rungs[-1], num_classes=self.data.num_classes, seed=seed)
        return GuidanceSearch(
            build_draws=lambda point: self.draws(point, seed=seed, y=y),
            extractor=self.sets.extractor,
            metric=self.sets.metrics[self.target],
            reference=reference,
            y=y,
            balanced=self.balanced,
            rungs=self.rungs,
            keep=self.keep,
            part_size=self.part_size,
            num_processes=self.num_processes,
            device=self.device,
            folder=folder,
        )

    def measure(self, chosen: GuidancePoint, out: Path) -> dict[str, Estimate]:
        """The protocol's metrics of fresh samples of the chosen setting."""
        y = sample_labels(self.labels, self.num_samples, num_classes=self.data.num_classes, seed=self.sampling_seed)
        parts = SampleParts(out / "parts", num_samples=self.num_samples, part_size=self.part_size)
        draws = self.draws(chosen, seed=self.sampling_seed, y=y)
        draw_parts(draws, parts, num_processes=self.num_processes, device=self.device)
        settings: dict[str, Any] = {
            "pixel_rule": self.pixel_rule,
            "batch_size": self.batch_size,
            "num_processes": self.num_processes,
        }
        metrics = compare_images(
            self.sets,
            self.ratio_sets,
            Samples(parts, y, self.batch_size),
            self.data,
            strata=y if self.balanced else None,
            reference=self.reference,
            settings=settings,
            scratch=out / "shares",
        )
        write_sheet(parts, y, out / SHEET)
        parts.remove()
        return metrics

    def draws(self, point: GuidancePoint, *, seed: int, y: torch.Tensor) -> SampleDraws:
        """How samples of a setting are drawn."""
        return SampleDraws(
            self.tokenizer,
            self.generator(point.average),
            self.variants.build_sampler(point.steps),
            self.guidance(point),
            seed,
            y,
            self.pixel_rule,
            self.precision,
            self.compile,
            self.batch_size,
        )

    def generator(self, average: float | None) -> Generator:
        """The generator with the weights of an average, which is loaded once."""
        if average not in self._loaded:
            self._loaded[average] = self.variants.load_generator(average)
        return self._loaded[average]

    def guidance(self, point: GuidancePoint) -> Any:
        """The guidance of a setting."""
        return self.variants.build_guidance(self.generator(point.average), point.scale, point.low, point.high)

    def note_edges(self, chosen: GuidancePoint) -> None:
        """Logs that the best scale is the largest of the grid: a larger one may be better."""
        if chosen.scale == max(point.scale for point in self.points):
            log.info(
                "The best scale, %g, is the largest of job.scales: a larger one may be better.",
                chosen.scale,
            )
