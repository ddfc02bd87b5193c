"""Job `evaluate`: images that anybody made, by the metrics, intervals and floors of our own samples.

Samples are compared with real images as by job `generate`; reconstructions, beside their originals, as by job
`reconstruct`.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ldbench.core.estimate import Estimate
from ldbench.core.interfaces import ImageData
from ldbench.core.intervals import student_mean
from ldbench.core.measured_samples import MeasuredSamples
from ldbench.core.pixels import PixelRule
from ldbench.io.files import digest
from ldbench.jobs._batches import split_into_batches
from ldbench.jobs._reconstruction_pass import Metric
from ldbench.jobs._sample_comparison import compare_on_extractors, compare_samples, ratio_directions
from ldbench.jobs._sample_sets import SampleSet, open_samples, unequal_names
from ldbench.jobs._set_metrics import SetEvaluator, ranked, validate_kept
from ldbench.metrics.feature_set import FeatureSet
from ldbench.runtime.progress import progress

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SampleBatches:
    """The images of a set in batches, with their labels where they are known."""

    samples: SampleSet
    batch_size: int
    contiguous: bool  # as job `reconstruct` has them; job `generate` has channels last, which rounds otherwise

    def ranges(self) -> list[range]:
        """The indices of each batch's images, in order."""
        return split_into_batches([len(self.samples)], self.batch_size)

    def read(self, ranges: Sequence[range]) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Images and labels of some of these batches, in order."""
        labels = self.samples.labels
        for batch in ranges:
            images = self.samples.read(batch)
            own = None if labels is None else labels[batch.start : batch.stop]
            yield images.contiguous() if self.contiguous else images, own


class Evaluate:
    """Compares a set of images with the protocol's reference, or with their originals.

    `samples`: a folder of images (flat, or in folders of classes), an `.npz` in ADM's layout, or a tar of images, taken
    in the order of their names; on the images of job `generate` every number is that job's. Labels are the names of
    the folders, or those of the file; where there are none, metrics that need labels are left out. `originals`: as many
    images under equal names; every number is then that of job `reconstruct`. `by`: who made them, for people. Raises
    ValueError for images of another size than the data's, and for originals of other names.
    """

    name: ClassVar[str] = "evaluate"
    revision: ClassVar[int] = 1
    requires: ClassVar[frozenset[str]] = frozenset()
    settings: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        *,
        samples: str,
        by: str | None,
        originals: str | None,
        data: ImageData,
        metrics: Mapping[str, Metric] | None,  # of pairs of images; None without originals
        sets: SetEvaluator | None,  # metrics on sets; None where the protocol has none
        # by extractor, on which samples are compared by FDr; None with originals
        ratio_sets: Mapping[str, Callable[[], SetEvaluator]] | None,
        reference: str | None,  # train, test or an .npz in ADM's layout; None with originals
        pixel_rule: PixelRule,
        batch_size: int,
        num_processes: int,
        device: torch.device,
    ):
        self.samples, self.originals = opened(samples, originals, data)
        self.data = data
        self.metrics = metrics
        self.sets = sets
        self.ratio_sets = ratio_sets or {}
        self.reference = reference
        self.pixel_rule = pixel_rule
        self.batch_size = batch_size
        self.num_processes = num_processes
        self.device = device
        self.per_image: Mapping[str, Tensor] = {}
        self.higher_is_better = ratio_directions(self.ratio_sets) | ({} if metrics is None else ranked(metrics))
        if sets is not None:
            self.higher_is_better |= sets.higher_is_better("g" if self.originals is None else "r")
            if self.originals is None:
                validate_kept(sets.metrics, len(data.train), sets.kept)

    @staticmethod
    def check(settings: Mapping[str, Any]) -> None:
        """Raises ValueError for settings out of range."""
        for key in ("batch_size", "num_processes"):
            if not isinstance(settings[key], int) or settings[key] < 1:
                raise ValueError(f"job.{key} must be a whole number of at least 1, got {settings[key]!r}.")

    @staticmethod
    def output_files(settings: Mapping[str, Any]) -> tuple[str, ...]:
        """None: figures alone."""
        return ()

    @staticmethod
    def unneeded(settings: Mapping[str, Any]) -> frozenset[str]:
        """The inputs that it does without: metrics of pairs without originals, those of samples with them."""
        return frozenset({"metrics"} if settings.get("originals") is None else {"reference", "ratio_sets"})

    @staticmethod
    def measured_samples(settings: Mapping[str, Any], data: ImageData) -> MeasuredSamples:
        """What it measures: whose images, their content, and what of the protocol they say themselves."""
        samples, originals = opened(settings["samples"], settings["originals"], data)
        name = settings["by"] or samples.path.resolve().stem
        if originals is not None:
            both = digest({"samples": samples.digest, "originals": originals.digest})
            return MeasuredSamples(name, both, {"num_samples": len(samples)})
        own = {"num_samples": len(samples), "labels": samples.balance}
        return MeasuredSamples(name, samples.digest, own)

    def run(self, out: Path) -> dict[str, Estimate]:
        """Each metric, with its 95 % interval where it has one."""
        if self.originals is not None:
            return self.measure_pairs(self.originals, out)
        balanced = self.samples.balance == "balanced"
        strata = self.samples.labels if balanced else None
        compared: dict[str, Any] = {"reference": self.reference, "balanced": balanced}
        compared["settings"] = {
            "pixel_rule": self.pixel_rule,
            "batch_size": self.batch_size,
            "num_processes": self.num_processes,
        }
        found = {}
        if self.sets is not None:
            sets = self.without_labels(self.sets) if self.samples.labels is None else self.sets
            features = self.features(sets, self.samples, strata=strata, out=out)
            found = compare_samples(sets, features, self.data, **compared)
        images = SampleBatches(self.samples, self.batch_size, contiguous=False)
        return found | compare_on_extractors(
            self.ratio_sets, images, self.data, strata=strata, scratch=out / "shares", **compared
        )

    def without_labels(self, sets: SetEvaluator) -> SetEvaluator:
        """The metrics that need no labels of samples; the log names the others."""
        needing = [name for name, metric in sets.metrics.items() if "labels" in metric.requires]
        if needing:
            log.info("The labels of these samples are unknown: %s is left out.", ", ".join(needing))
        return replace(sets, metrics={name: metric for name, metric in sets.metrics.items() if name not in needing})

    def features(self, sets: SetEvaluator, images: SampleSet, *, strata: Tensor | None, out: Path) -> FeatureSet:
        """The features of a set of images."""
        if images.labels is None:
            sets.requires = sets.requires - {"labels"}
        return sets.sample_features(
            SampleBatches(images, self.batch_size, contiguous=self.originals is not None),
            strata=strata,
            num_processes=self.num_processes,
            scratch=out / "shares",
        )

    def measure_pairs(self, originals: SampleSet, out: Path) -> dict[str, Estimate]:
        """The mean of each metric over the pairs, and each metric on sets of pairs."""
        values: dict[str, list[Tensor]] = {name: [] for name in self.metrics or {}}
        for metric in (self.metrics or {}).values():
            if isinstance(metric, nn.Module):
                metric.to(self.device)
        ranges = split_into_batches([len(originals)], self.batch_size)
        with progress("comparing", total=len(originals), done=0) as advance:
            for batch in ranges:
                images, recon = originals.read(batch), self.samples.read(batch)
                for name, metric in (self.metrics or {}).items():
                    values[name].append(metric(images, recon))
                advance(len(batch))
        self.per_image = {name: torch.cat(parts) for name, parts in values.items()}
        means = {name: student_mean(found) for name, found in self.per_image.items()}
        if self.sets is None:
            return means
        sets = self.without_labels(self.sets) if self.samples.labels is None else self.sets
        both = [self.features(sets, images, strata=None, out=out) for images in (self.samples, originals)]
        return means | dict(sets.measure(both[0], both[1], prefix="r", paired=True))


def opened(samples: str, originals: str | None, data: ImageData) -> tuple[SampleSet, SampleSet | None]:
    """The samples, and their originals if there are any.

    Raises ValueError for originals of other names, and for images of another size than the data's.
    """
    by: Any = "name" if originals is None else "path"
    found = open_samples(samples, class_names=data.class_names, by=by)
    beside = None if originals is None else open_samples(originals, class_names=data.class_names, by=by)
    unequal = None if beside is None else unequal_names(found, beside)
    if unequal is not None:
        raise ValueError(f"Reconstructions and originals are paired by their names, and these differ: {unequal}")
    for images in (found, *([] if beside is None else [beside])):
        height, width = images.read(range(1)).shape[2:]
        if (height, width) != (data.image_size, data.image_size):
            raise ValueError(
                f"The images in {images.path} have {width} x {height} px, and those of {data.name} "
                f"{data.image_size} x {data.image_size} px: their distance would be that of the sizes. Set "
                f"data.image_size={width}, or resize the images."
            )
    return found, beside
