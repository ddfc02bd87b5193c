"""Successive halving over guidance settings: all on few samples, the better share of them on more.

All settings are measured on the same noise and labels, so that they differ by nothing but the settings.

[0] Karnin, Koren and Somekh, Almost Optimal Exploration in Multi-Armed Bandits, 2013,
    https://proceedings.mlr.press/v28/karnin13.html (successive halving)
[1] Jamieson and Talwalkar, Non-stochastic Best Arm Identification and Hyperparameter Optimization, 2016,
    https://arxiv.org/abs/1502.07943
"""

import logging
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from ldbench.core.estimate import Estimate
from ldbench.core.intervals import Replicates
from ldbench.io.safetensors_io import write_tensors
from ldbench.jobs._sample_draws import SampleDraws
from ldbench.jobs._sampling_variants import CountedGuidance
from ldbench.metrics.feature_set import Extractor, FeatureAccumulator, Features, FeatureSet, SetMetric
from ldbench.runtime.progress import progress
from ldbench.runtime.workers import run_parallel, split_evenly

log = logging.getLogger(__name__)

OUTPUTS = ("features", "spatial", "logits")  # of an extractor


@dataclass(frozen=True)
class GuidancePoint:
    """One setting of the search."""

    average: float | None  # the decay of the weight average; None: the exported weights
    steps: int | None  # of the sampler; None: as configured
    low: float  # guided only for low <= t <= high, 0 noise, 1 data
    high: float
    scale: float  # 1: unguided

    @property
    def name(self) -> str:
        """Its name as a point of a curve over scales."""
        average = "exported" if self.average is None else f"{self.average}"
        steps = "configured" if self.steps is None else f"{self.steps}"
        return f"average={average}/steps={steps}/interval={self.low:g}-{self.high:g}/scale={self.scale:g}"


@dataclass(frozen=True)
class Measured:
    """A setting's score on a rung."""

    point: GuidancePoint
    score: Estimate
    behind: Estimate | None  # its score less that of the rung's best, on the same noise; None: no interval is known


@dataclass(frozen=True)
class Rung:
    """The settings that were measured on so many samples, the best first."""

    num_samples: int
    measured: Sequence[Measured]


def grid_of(
    averages: Sequence[float | None],
    steps: Sequence[int | None],
    intervals: Sequence[tuple[float, float]],
    scales: Sequence[float],
) -> list[GuidancePoint]:
    """All combinations; at scale 1 the interval has no effect, and the first one stands for all."""
    points = (
        GuidancePoint(average, count, low, high, scale)
        for average, count, (low, high), scale in product(averages, steps, intervals, scales)
    )
    return [point for point in points if point.scale != 1 or (point.low, point.high) == tuple(intervals[0])]


def num_kept(count: int, keep: float) -> int:
    """How many of so many settings go on to the next rung: the share `keep`, rounded up, and at least one."""
    return max(1, math.ceil(count * keep - 1e-9))


def num_drawn(count: int, rungs: Sequence[int], keep: float) -> int:
    """The samples that a search over so many settings draws: on a later rung only those that are new."""
    total, before = 0, 0
    for num_samples in rungs:
        total, before, count = total + count * (num_samples - before), num_samples, num_kept(count, keep)
    return total


@dataclass(frozen=True)
class FeatureDraws:
    """Draws samples of one setting and keeps their features alone, in parts that any process can make."""

    draws: SampleDraws  # whose guidance is counted
    extractor: Extractor

    def run(
        self,
        folder: Path,
        ranges: Sequence[range],
        *,
        device: torch.device,
        advance: Callable[[int], None],  # called with the number of samples drawn
    ) -> None:
        """Makes some parts, one after the other, each written atomically."""
        self.draws.prepare(device)
        extractor = self.extractor.to(device)
        guidance = self.draws.guidance
        assert isinstance(guidance, CountedGuidance), "calls are counted"
        for part in ranges:
            before = guidance.items
            size = self.draws.batch_size
            batches = [part[first : first + size] for first in range(0, len(part), size)]
            found = [extractor.extract(self.draws.sample(batch, device).to(device)) for batch in batches]
            tensors = {
                name: torch.cat([getattr(features, name).cpu() for features in found])
                for name in OUTPUTS
                if getattr(found[0], name) is not None
            }
            counts = {"items": torch.tensor(guidance.items - before), "count": torch.tensor(len(part))}
            write_tensors({**tensors, **counts}, part_path(folder, part))
            advance(len(part))


@dataclass(frozen=True)
class RungDraws:
    """Makes parts of any of a rung's settings; what the settings share is sent to another process once."""

    draws: Mapping[GuidancePoint, FeatureDraws]
    folder: Path

    def run(
        self, share: Sequence[tuple[GuidancePoint, range]], *, device: torch.device, advance: Callable[[int], None]
    ) -> None:
        """Makes some parts, one after the other."""
        for point, part in share:
            self.draws[point].run(self.folder / point.name, [part], device=device, advance=advance)


@dataclass(frozen=True)
class GuidanceSearch:
    """Successive halving [0, 1] over settings; a part that was drawn before an interruption is not drawn again."""

    build_draws: Callable[[GuidancePoint], SampleDraws]  # of a setting, with the search's noise and labels
    extractor: Extractor
    metric: SetMetric
    reference: FeatureSet
    y: Tensor  # (rungs[-1],) labels of the samples
    balanced: bool  # whether these were chosen, not drawn
    rungs: Sequence[int]  # samples of each rung, increasing
    keep: float  # share of settings that go on
    part_size: int
    num_processes: int
    device: torch.device
    folder: Path  # of the parts

    def run(self, points: Sequence[GuidancePoint]) -> list[Rung]:
        """The rungs, the last one last; its first setting is the chosen one."""
        rungs: list[Rung] = []
        left = list(points)
        with progress("searching", total=num_drawn(len(points), self.rungs, self.keep), done=0) as advance:
            for number, num_samples in enumerate(self.rungs, 1):
                self.draw(left, num_samples, advance)
                rungs.append(Rung(num_samples, self.measure(left, num_samples)))
                best = rungs[-1].measured[0]
                going_on = {found.point for found in rungs[-1].measured[: num_kept(len(left), self.keep)]}
                log.info(
                    "Rung %d of %d: %d settings on %d samples, best %.4g at %s.",
                    *(number, len(self.rungs), len(left), num_samples, best.score.value, best.point.name),
                )
                left = [point for point in left if point in going_on]
        return rungs

    def draw(self, points: Sequence[GuidancePoint], num_samples: int, advance: Callable[[int], None]) -> None:
        """Draws the missing parts of the first samples of some settings."""
        wanted = [(point, part) for point in points for part in self.parts(num_samples)]
        missing = [(point, part) for point, part in wanted if not part_path(self.folder / point.name, part).is_file()]
        advance(
            sum(len(part) for point, part in wanted if (point, part) not in missing and self.is_new(part, num_samples))
        )
        if not missing:
            return
        draws = {point: self.build_draws(point) for point in dict.fromkeys(point for point, _ in missing)}
        counted = {
            point: FeatureDraws(replace(own, guidance=CountedGuidance(own.guidance)), self.extractor)
            for point, own in draws.items()
        }
        work, shares = RungDraws(counted, self.folder), split_evenly(missing, self.num_processes)
        if len(shares) == 1:
            work.run(missing, device=self.device, advance=advance)
        else:
            self.extractor.to(torch.device("cpu"))  # for sending it to other processes
            run_parallel(work.run, shares, device=self.device, advance=advance)

    def parts(self, num_samples: int) -> list[range]:
        """The parts of a setting's first samples: none crosses the end of a rung."""
        ends = [0, *(end for end in self.rungs if end <= num_samples)]
        return [
            range(first, min(first + self.part_size, end))
            for start, end in pairwise(ends)
            for first in range(start, end, self.part_size)
        ]

    def is_new(self, part: range, num_samples: int) -> bool:
        """Whether a part is of the samples that this rung adds."""
        return part.start >= max((end for end in self.rungs if end < num_samples), default=0)

    def measure(self, points: Sequence[GuidancePoint], num_samples: int) -> list[Measured]:
        """The score of each setting on its first samples, the best first; of equals the first of the grid."""
        scores = {point: self.score(self.features(point, num_samples)) for point in points}
        sign = -1 if self.metric.higher_is_better else 1
        order = sorted(points, key=lambda point: sign * scores[point][0].value)
        best = scores[order[0]][1]
        return [
            Measured(point, score, None if replicates is None or best is None else replicates.minus(best).estimate())
            for point in order
            for score, replicates in [scores[point]]
        ]

    def score(self, samples: FeatureSet) -> tuple[Estimate, Replicates | None]:
        """The metric of samples, and without parts of them where it has replicates."""
        if not hasattr(self.metric, "replicates"):
            return self.metric(samples, self.reference, paired=False), None
        replicates: Replicates = self.metric.replicates(samples, self.reference)
        return replicates.estimate(), replicates

    def features(self, point: GuidancePoint, num_samples: int) -> FeatureSet:
        """The features of a setting's first samples."""
        y = self.y[:num_samples]
        strata = y if self.balanced else None
        requires = self.metric.requires | getattr(self.metric, "uses", frozenset())
        accumulator = FeatureAccumulator(num_samples, requires, num_samples, strata)
        for part in self.parts(num_samples):
            tensors = load_file(part_path(self.folder / point.name, part))
            found = Features(**{name: tensors[name] for name in OUTPUTS if name in tensors})
            accumulator.update(torch.arange(part.start, part.stop), found, y[part.start : part.stop])
        return accumulator.finish()

    def num_calls(self, point: GuidancePoint | None = None) -> int:
        """The network calls of all samples that were drawn, of all settings or of one; a call of a batch counts for
        each of its samples.
        """
        return sum(read_number(path, "items") for path in self.files(point))

    def num_samples(self, point: GuidancePoint | None = None) -> int:
        """The samples that were drawn, of all settings or of one."""
        return sum(read_number(path, "count") for path in self.files(point))

    def files(self, point: GuidancePoint | None) -> Iterator[Path]:
        """The files of all parts."""
        return (self.folder if point is None else self.folder / point.name).rglob("*.safetensors")

    def remove(self) -> None:
        """Deletes all parts."""
        shutil.rmtree(self.folder, ignore_errors=True)


def part_path(folder: Path, part: range) -> Path:
    """The file of a part, which names its first and last sample."""
    return folder / f"{part.start:06d}-{part.stop - 1:06d}.safetensors"


def read_number(path: Path, name: str) -> int:
    """One number of a part, without reading its features."""
    with safe_open(path, framework="pt") as file:
        return int(file.get_tensor(name))
