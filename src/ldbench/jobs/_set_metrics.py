"""One pass over a set of images feeds every metric on sets; what was seen of a data set's split is kept by digest."""

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
from ldbench.core.interfaces import Estimate, ImageData, ImageSet
from ldbench.core.pixels import PixelRule
from ldbench.io.files import file_digest
from ldbench.io.safetensors_io import write_tensors
from ldbench.jobs._batches import Batches, FileImages, SplitImages
from ldbench.jobs._sharded import run_sharded
from ldbench.metrics import adm_npz, feature_set
from ldbench.metrics.feature_set import Extractor, FeatureAccumulator, FeatureSet, SetMetric
from ldbench.runtime.workers import split_evenly

log = logging.getLogger(__name__)

STANDARD = {"sfd": "sfid"}  # names on Inception-v3 that differ from those of the config group


@dataclass
class Watch:
    """A pass that is under way: a set of images as an extractor sees it."""

    extractor: Extractor
    gathered: FeatureAccumulator
    device: torch.device

    def update(
        self,
        first: int,  # the place of images[0] in the set
        images: Tensor,  # (B, 3, H, W) uint8
        labels: Tensor | None = None,  # (B,)
    ) -> None:
        """Looks at a batch."""
        looked = self.extractor.extract(images.to(self.device))
        self.gathered.update(torch.arange(first, first + len(images)), looked, labels)

    def finish(self) -> FeatureSet:
        """All of the set."""
        return self.gathered.finish()


@dataclass(frozen=True)
class Pass:
    """A pass of an extractor over a set of images, of which any process can make a share."""

    extractor: Extractor
    images: Batches
    requires: frozenset[str]
    kept: int

    def see(self, *, num_processes: int, device: torch.device, scratch: Path) -> FeatureSet:
        """The whole set; several processes leave what they gathered in the folder `scratch`, from which it is taken."""
        batches = self.images.places()
        shares, gathered = split_evenly(batches, num_processes), self.begin()
        if len(shares) == 1:
            self.extract(gathered, batches, device=device)
        else:
            self.extractor.to(torch.device("cpu"))  # from which it goes to other processes
            for told in run_sharded(self.look_apart, shares, device=device, advance=lambda _: None, scratch=scratch):
                gathered.merge_tensors(told)
        return gathered.finish()

    def begin(self) -> FeatureAccumulator:
        """Of nothing yet."""
        return FeatureAccumulator(self.images.places()[-1].stop, self.requires, self.kept)

    def extract(self, gathered: FeatureAccumulator, batches: Sequence[range], *, device: torch.device) -> None:
        """Sees some batches."""
        watch = Watch(self.extractor.to(device), gathered, device)
        for places, (images, labels) in zip(batches, self.images.read(batches), strict=True):
            watch.update(places.start, images, labels)

    def look_apart(
        self, batches: Sequence[range], *, device: torch.device, advance: Callable[[int], None]
    ) -> dict[str, Tensor]:
        """What was gathered of some batches."""
        gathered = self.begin()
        self.extract(gathered, batches, device=device)
        return gathered.tensors()


@dataclass
class SetMeasures:
    """The metrics on sets that a protocol asks for, and the extractor that they look through."""

    label: str  # the extractor's name
    extractor: Extractor
    digest: str  # of all that the extractor's numbers depend on
    metrics: Mapping[str, SetMetric]  # by the names of the config group
    kept: int  # images of a reference whose features are kept, for metrics on neighbours and kernels
    folder: Path  # of what was seen before
    workers: int
    device: torch.device
    requires: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.requires = frozenset().union(*(metric.requires for metric in self.metrics.values()))

    def begin(self, num_images: int) -> Watch:
        """A pass over reconstructions as they come, all of whose features are kept where metrics need them."""
        return Watch(
            self.extractor.to(self.device), FeatureAccumulator(num_images, self.requires, num_images), self.device
        )

    def see(self, images: Batches, *, num_processes: int, scratch: Path) -> FeatureSet:
        """A pass over samples, all of whose features are kept where metrics need them."""
        kept = images.places()[-1].stop
        return Pass(self.extractor, images, self.requires, kept).see(
            num_processes=num_processes, device=self.device, scratch=scratch
        )

    def reference(
        self,
        data: ImageData,
        split: Literal["train", "test", "all"],
        *,
        pixel_rule: PixelRule,
        batch_size: int,
        num_processes: int,
        requires: frozenset[str] | None = None,  # None: of all metrics
    ) -> FeatureSet:
        """What the extractor sees in a split, in a pass of its own unless that was made before: then from the file."""
        said = {
            "extractor": self.digest,
            "data": data.fingerprint,
            "split": split,
            "pixel_rule": pixel_rule,
            "kept": self.kept,
        }
        images = SplitImages(parts_of(data, split), pixel_rule, batch_size, self.workers)
        return self.seen(said, images, num_processes=num_processes, requires=requires)

    def held_against(
        self, data: ImageData, reference: str, *, pixel_rule: PixelRule, batch_size: int, num_processes: int
    ) -> FeatureSet:
        """The reference of a protocol: a split of the data, or an `.npz` in ADM's layout, whose pixels are as they are."""
        if reference in ("train", "test"):
            return self.reference(
                data, reference, pixel_rule=pixel_rule, batch_size=batch_size, num_processes=num_processes
            )
        return self.published(Path(reference), batch_size=batch_size, num_processes=num_processes)

    def published(self, path: Path, *, batch_size: int, num_processes: int) -> FeatureSet:
        """A reference in ADM's layout: what the extractor sees in its images, and where the file tells them, the laws of the whole set behind it.

        Raises ValueError for laws of another extractor's features than the standard Inception-v3's, and for metrics on labels, which it has not.
        """
        laws = adm_npz.read_standard_statistics(path, self.label, standard=self.extractor.standard)
        said = {"extractor": self.digest, "file": file_digest(path), "kept": self.kept}
        images = FileImages(path, batch_size)
        return replace(
            self.seen(said, images, num_processes=num_processes, requires=self.requires - {"labels"}), **laws
        )

    def seen(
        self,
        said: Mapping[str, Any],
        images: Batches,
        *,
        num_processes: int,
        requires: frozenset[str] | None = None,  # None: of all metrics
    ) -> FeatureSet:
        """A set from its file, which is made where it is not there. `said`: what the numbers depend on."""
        requires = self.requires if requires is None else requires
        path = (
            self.folder
            / f"{store.digest({**said, 'needs': sorted(requires), 'revision': feature_set.REVISION})}.safetensors"
        )
        if not path.is_file():
            with store.building_lock(path, doing="looking at the images of"):
                if not path.is_file():
                    self.extract(path, Pass(self.extractor, images, requires, self.kept), num_processes=num_processes)
        log.debug("Features of %s: %s", said, path)
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
                f"{path} holds no features that can be read ({error}). Remove it: it is made again."
            ) from error

    def extract(self, path: Path, whole: Pass, *, num_processes: int) -> None:
        """Sees a whole set, and writes what was seen in one move."""
        seen = whole.see(num_processes=num_processes, device=self.device, scratch=path.with_suffix(".shares"))
        write_tensors(dict(feature_set.set_to_tensors(seen)), path)

    def measure(
        self, samples: FeatureSet, reference: FeatureSet, *, prefix: Literal["r", "g"], paired: bool
    ) -> Iterator[tuple[str, Estimate]]:
        """Every metric of samples against a reference. `prefix`: of Frechet distances, of reconstructions or of generated images."""
        for key, metric in self.metrics.items():
            yield self.name(key, prefix), metric(samples, reference, paired=paired)

    def floors(
        self, heldout: FeatureSet, others: FeatureSet, *, prefix: Literal["r", "g"]
    ) -> Iterator[tuple[str, Estimate]]:
        """Every distance of real held-out images to other real ones: the training images, or those of a reference."""
        for key, metric in self.metrics.items():
            if metric.is_distance:
                yield f"{self.name(key, prefix)}_floor", metric(heldout, others, paired=False)

    def name(self, key: str, prefix: Literal["r", "g"]) -> str:
        """A metric's name in records."""
        return set_metric_name(key, prefix, label=self.label, standard=self.extractor.standard)

    def higher_is_better(self, prefix: Literal["r", "g"]) -> dict[str, bool]:
        """Whether larger values are better, of each metric that is ranked, by its name in records."""
        return ranked({self.name(key, prefix): metric for key, metric in self.metrics.items()})


def set_metric_name(key: str, prefix: Literal["r", "g"], *, label: str | None, standard: bool) -> str:
    """The name in records of a metric on sets: that of the papers on the standard Inception-v3, and with the extractor's label on any other."""
    if key == "fd":
        return f"{prefix}fid" if standard else f"{prefix}fd_{label}"
    return STANDARD.get(key, key) if standard else f"{key}_{label}"


def ranked(metrics: Mapping[str, object]) -> dict[str, bool]:
    """Whether larger values are better, of each metric whose class says so, by name."""
    directions = {name: getattr(metric, "higher_is_better", None) for name, metric in metrics.items()}
    return {name: better for name, better in directions.items() if better is not None}


def parts_of(data: ImageData, split: Literal["train", "test", "all"]) -> list[ImageSet]:
    """The images of a split, in one part or two."""
    return [data.train, data.test] if split == "all" else [getattr(data, split)]
