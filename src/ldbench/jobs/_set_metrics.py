"""Metrics on sets of images, all from one pass over each set; features of a dataset's splits are cached by digest."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ldbench.artifacts import store
from ldbench.artifacts.building import building_lock
from ldbench.core.estimate import Estimate
from ldbench.core.interfaces import ImageData, ImageSet
from ldbench.core.pixels import PixelRule
from ldbench.io.files import file_digest
from ldbench.io.safetensors_io import write_tensors
from ldbench.jobs._batches import Batches, FileImages, SplitImages
from ldbench.jobs._sharded import run_sharded
from ldbench.jobs._stored_estimates import stored_estimates
from ldbench.metrics import adm_npz, feature_set
from ldbench.metrics.feature_set import Extractor, FeatureAccumulator, FeatureSet, SetMetric
from ldbench.runtime.progress import progress
from ldbench.runtime.workers import split_evenly

log = logging.getLogger(__name__)

Prefix = Literal["r", "g", "i"]  # of a Frechet distance: of reconstructions, of generated images, of interpolations
STANDARD_NAMES = {"sfd": "sfid"}  # metric names on Inception-v3 that differ from the config group


@dataclass
class FeatureCollector:
    """Collects the features of a set of images, batch by batch."""

    extractor: Extractor
    accumulator: FeatureAccumulator
    device: torch.device

    def update(
        self,
        first: int,  # index of images[0] in the set
        images: Tensor,  # (B, 3, H, W) uint8
        labels: Tensor | None = None,  # (B,)
    ) -> None:
        """Adds a batch."""
        features = self.extractor.extract(images.to(self.device))
        self.accumulator.update(torch.arange(first, first + len(images)), features, labels)

    def finish(self) -> FeatureSet:
        """Returns the features of the whole set."""
        return self.accumulator.finish()


@dataclass(frozen=True)
class ExtractionPass:
    """A pass of an extractor over a set of images; processes can share it."""

    extractor: Extractor
    images: Batches
    requires: frozenset[str]
    kept: int
    strata: Tensor | None = None  # (n,) labels that were chosen, within which parts are drawn

    def run(self, *, num_processes: int, device: torch.device, scratch: Path) -> FeatureSet:
        """The features of the whole set; several processes exchange theirs by files in the folder `scratch`."""
        batches = self.images.ranges()
        shares, accumulator = split_evenly(batches, num_processes), self.new_accumulator()
        with progress("extracting features", total=batches[-1].stop, done=0) as advance:
            if len(shares) == 1:
                self.extract(accumulator, batches, device=device, advance=advance)
            else:
                self.extractor.to(torch.device("cpu"))  # for sending it to other processes
                for tensors in run_sharded(self.run_share, shares, device=device, advance=advance, scratch=scratch):
                    accumulator.merge_tensors(tensors)
        return accumulator.finish()

    def new_accumulator(self) -> FeatureAccumulator:
        """An empty accumulator for the set."""
        return FeatureAccumulator(self.images.ranges()[-1].stop, self.requires, self.kept, self.strata)

    def extract(
        self,
        accumulator: FeatureAccumulator,
        batches: Sequence[range],
        *,
        device: torch.device,
        advance: Callable[[int], None],
    ) -> None:
        """Adds the features of some batches."""
        collector = FeatureCollector(self.extractor.to(device), accumulator, device)
        for batch, (images, labels) in zip(batches, self.images.read(batches), strict=True):
            collector.update(batch.start, images, labels)
            advance(len(batch))

    def run_share(
        self, batches: Sequence[range], *, device: torch.device, advance: Callable[[int], None]
    ) -> dict[str, Tensor]:
        """The accumulated features of some batches, as tensors."""
        accumulator = self.new_accumulator()
        self.extract(accumulator, batches, device=device, advance=advance)
        return accumulator.tensors()


@dataclass
class SetEvaluator:
    """The metrics on sets of a protocol, and their feature extractor."""

    label: str  # the extractor's name
    extractor: Extractor
    key: str  # of everything that the features depend on
    metrics: Mapping[str, SetMetric]  # by the names of the config group
    kept: int  # images of a reference whose features are stored, for metrics on neighbors and kernels
    folder: Path  # of cached features
    workers: int
    device: torch.device
    metrics_key: str | None = None  # of all that the metrics depend on but their inputs; None: nothing of them is kept
    requires: frozenset[str] = field(init=False)  # of samples
    reference_requires: frozenset[str] = field(init=False)  # of real images

    def __post_init__(self) -> None:
        used = [metric.requires | getattr(metric, "uses", frozenset()) for metric in self.metrics.values()]
        floors: list[frozenset[str]] = [
            getattr(metric, "reference_requires", frozenset()) for metric in self.metrics.values()
        ]
        self.requires = frozenset().union(*used)
        self.reference_requires = self.requires.union(*floors)

    def collector(self, num_images: int) -> FeatureCollector:
        """Collects the features of reconstructions as they are made; stores those of all images where metrics
        require it.
        """
        return FeatureCollector(
            self.extractor.to(self.device), FeatureAccumulator(num_images, self.requires, num_images), self.device
        )

    def sample_features(
        self,
        images: Batches,
        *,
        strata: Tensor | None,  # (n,) labels, where they were chosen and not drawn
        num_processes: int,
        scratch: Path,
    ) -> FeatureSet:
        """The features of samples; stores those of all images where metrics require it."""
        kept = images.ranges()[-1].stop
        return ExtractionPass(self.extractor, images, self.requires, kept, strata).run(
            num_processes=num_processes, device=self.device, scratch=scratch
        )

    def split_features(
        self,
        data: ImageData,
        split: Literal["train", "test", "all"],
        *,
        pixel_rule: PixelRule,
        batch_size: int,
        num_processes: int,
        requires: frozenset[str] | None = None,  # None: of all metrics
    ) -> FeatureSet:
        """The features of a split, from the cache or by a pass over it."""
        key = {
            "extractor": self.key,
            "data": data.fingerprint,
            "split": split,
            "pixel_rule": pixel_rule,
            "kept": self.kept,
        }
        images = SplitImages(parts_of(data, split), pixel_rule, batch_size, self.workers)
        return self.cached_features(key, images, num_processes=num_processes, requires=requires)

    def reference_features(
        self, data: ImageData, reference: str, *, pixel_rule: PixelRule, batch_size: int, num_processes: int
    ) -> FeatureSet:
        """The features of a protocol's reference: a split of the data, or an `.npz` in ADM's layout."""
        settings: dict[str, Any] = {"batch_size": batch_size, "num_processes": num_processes}
        if reference in ("train", "test"):
            return self.split_features(data, reference, pixel_rule=pixel_rule, **settings)  # type: ignore[arg-type]
        return self.npz_features(Path(reference), **settings)

    def npz_features(self, path: Path, *, batch_size: int, num_processes: int) -> FeatureSet:
        """The features of a reference in ADM's layout, with the Gaussians of its whole set where the file contains
        them.

        Raises ValueError for Gaussians if the extractor is not the standard Inception-v3. There are no labels. A file
        without images gives Gaussians alone.
        """
        gaussians = adm_npz.read_statistics_of(self.extractor, path, self.label)
        if not adm_npz.has_images(path):
            return FeatureSet(num_images=0, **gaussians)  # type: ignore[arg-type]
        if not gaussians and self.extractor.standard:
            log.warning(
                "%s has no statistics (mu, sigma): Frechet distances are to the %d images in it, which is less than a "
                "whole dataset as in ADM's own file.",
                path,
                adm_npz.num_images(path),
            )
        key = {"extractor": self.key, "file": file_digest(path), "kept": self.kept}
        images = FileImages(path, batch_size)
        requires = self.reference_requires - {"labels"}
        features = self.cached_features(key, images, num_processes=num_processes, requires=requires)
        return replace(features, **gaussians)  # type: ignore[arg-type]

    def cached_features(
        self,
        key: Mapping[str, Any],
        images: Batches,
        *,
        num_processes: int,
        requires: frozenset[str] | None = None,  # None: of all metrics
    ) -> FeatureSet:
        """The features of a set from its file, which is written if missing.

        `key`: everything that the features depend on.
        """
        requires = self.reference_requires if requires is None else requires
        path = (
            self.folder
            / f"{store.digest({**key, 'needs': sorted(requires), 'revision': feature_set.REVISION})}.safetensors"
        )
        if not path.is_file():
            with building_lock(path, doing="extracting the features of"):
                if not path.is_file():
                    self.extract(
                        path, ExtractionPass(self.extractor, images, requires, self.kept), num_processes=num_processes
                    )
        log.debug("Features of %s: %s", key, path)
        try:
            return feature_set.set_from_tensors(load_file(path))
        except (
            SafetensorError,
            KeyError,
            ValueError,
            TypeError,
            IndexError,
            RuntimeError,
            AttributeError,
            OSError,
        ) as error:
            raise ValueError(
                f"{path} contains no readable features ({error}). Remove it: it is then computed again."
            ) from error

    def extract(self, path: Path, extraction: ExtractionPass, *, num_processes: int) -> None:
        """Extracts the features of a set, and writes them atomically."""
        features = extraction.run(num_processes=num_processes, device=self.device, scratch=path.with_suffix(".shares"))
        write_tensors(dict(feature_set.set_to_tensors(features)), path)

    def measure(
        self, samples: FeatureSet, reference: FeatureSet, *, prefix: Prefix, paired: bool
    ) -> Iterator[tuple[str, Estimate]]:
        """Every metric of samples against a reference; of paired sets those that say something about pairs.

        `prefix` of Frechet distances: r for reconstructions, g for generated images, i for interpolations.
        """
        for key, metric in self.metrics.items():
            if needs_heldout(metric) or (paired and not getattr(metric, "of_pairs", True)):
                continue
            suffix = metric.suffix(samples, reference) if hasattr(metric, "suffix") else ""
            yield self.name(f"{key}{suffix}", prefix), metric(samples, reference, paired=paired)

    def measure_real(
        self, real: FeatureSet, reference: FeatureSet, label: str, *, prefix: Prefix
    ) -> Iterator[tuple[str, Estimate]]:
        """Every metric of real images against a reference, with a label behind its name.

        A metric that these images are too few for is left out. Measured once for all models.
        """
        if self.metrics_key is None:
            yield from self.measure_real_anew(real, reference, label, prefix=prefix)
            return
        key = {
            "metrics": self.metrics_key,
            "sets": [feature_set.digest(features) for features in (real, reference)],
            "names": [self.label, self.extractor.standard, label, prefix],
        }
        path = self.folder / f"real-{store.digest(key)}.json"
        yield from stored_estimates(path, lambda: self.measure_real_anew(real, reference, label, prefix=prefix)).items()

    def measure_real_anew(
        self, real: FeatureSet, reference: FeatureSet, label: str, *, prefix: Prefix
    ) -> Iterator[tuple[str, Estimate]]:
        """See `measure_real`."""
        for key, metric in self.metrics.items():
            alone = replace(self, metrics={key: metric})
            try:
                measured = list(alone.measure(real, reference, prefix=prefix, paired=False))
            except ValueError as error:
                log.info("%s is not measured for %s images, which samples are read by: %s", key, label, error)
                continue
            yield from ((f"{name}_of_{label}", estimate) for name, estimate in measured)

    def floors(
        self,
        reference: FeatureSet,
        *,
        heldout: FeatureSet | None,  # real images that are not in the reference; None: there are none
        num_samples: int,
        balanced: bool,
        prefix: Prefix,
    ) -> Iterator[tuple[str, Estimate]]:
        """What a perfect generator gets on average, for each metric that knows it.

        `balanced`: whether the samples' labels are balanced, else random.
        """
        for key, metric in self.metrics.items():
            if hasattr(metric, "floor") and not (needs_heldout(metric) and heldout is None):
                real = {"heldout": heldout} if needs_heldout(metric) else {}
                floor = metric.floor(reference, num_samples=num_samples, balanced=balanced, **real)
                if floor is not None:
                    yield f"{self.name(key, prefix)}_floor", Estimate(floor)

    def compare_with_heldout(
        self, samples: FeatureSet, reference: FeatureSet, heldout: FeatureSet, *, prefix: Prefix
    ) -> Iterator[tuple[str, Estimate]]:
        """Every metric of samples beside real images that are not in the reference."""
        for key, metric in self.metrics.items():
            if needs_heldout(metric) and not compares_splits(metric):
                yield self.name(key, prefix), metric(samples, reference, heldout=heldout)  # type: ignore[call-arg]

    def compare_with_splits(
        self, samples: FeatureSet, training: FeatureSet, heldout: FeatureSet, *, prefix: Prefix
    ) -> Iterator[tuple[str, Estimate]]:
        """Every metric that tells training images from held-out ones."""
        for key, metric in self.metrics.items():
            if compares_splits(metric):
                yield self.name(key, prefix), metric(samples, training, heldout=heldout)  # type: ignore[call-arg]

    def name(self, key: str, prefix: Prefix) -> str:
        """A metric's name in records."""
        return set_metric_name(key, prefix, label=self.label, standard=self.extractor.standard)

    def higher_is_better(self, prefix: Prefix) -> dict[str, bool]:
        """Whether larger values are better, for each ranked metric, by its name in records."""
        return ranked(
            {
                self.name(f"{key}{suffix}", prefix): metric
                for key, metric in self.metrics.items()
                for suffix in getattr(metric, "suffixes", ("",))
            }
        )


def validate_kept(metrics: Mapping[str, object], num_train: int, kept: int) -> None:
    """Raises ValueError for metrics, given by name or as classes, that need more features than are stored."""
    for key, metric in metrics.items():
        if getattr(metric, "of_all_training_images", False) and num_train > kept:
            raise ValueError(
                f"{key} needs the features of all {num_train} training images, and protocol.kept={kept} stores those "
                f"of {kept}. Set protocol.kept={num_train}, or leave {key} out of protocol.distribution."
            )


def compares_splits(metric: SetMetric) -> bool:
    """Whether a metric is called with the training and the held-out images."""
    return getattr(metric, "compares", "reference") == "splits"


def needs_heldout(metric: SetMetric) -> bool:
    """Whether a metric is called with real images that are not in its reference."""
    return getattr(metric, "compares", "reference") in ("splits", "heldout")


def set_metric_name(key: str, prefix: Prefix, *, label: str | None, standard: bool) -> str:
    """The name in records of a metric on sets: the papers' name on the standard Inception-v3, else with the
    extractor's label.
    """
    if key == "fd":
        return f"{prefix}fid" if standard else f"{prefix}fd_{label}"
    return STANDARD_NAMES.get(key, key) if standard else f"{key}_{label}"


def ranked(metrics: Mapping[str, object]) -> dict[str, bool]:
    """Whether larger values are better, for each metric whose class declares it, by name."""
    directions = {name: getattr(metric, "higher_is_better", None) for name, metric in metrics.items()}
    return {name: better for name, better in directions.items() if better is not None}


def parts_of(data: ImageData, split: Literal["train", "test", "all"]) -> list[ImageSet]:
    """The images of a split, in one part or two."""
    return [data.train, data.test] if split == "all" else [getattr(data, split)]
