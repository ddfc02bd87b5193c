"""FeatureSet: what an extractor saw in a set of images, as far as the metrics of a protocol need it; gathered in one pass, in any order.

Every image has a place in its set. Rows are kept by place, and the parts that intervals leave out are drawn by place, so that nothing
depends on batches, order, workers or processes.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from ldbench.core.interfaces import Estimate
from ldbench.metrics.moments import Moments, Normal

REVISION = 1  # raised when what is gathered of the same features changes
PARTS = 10  # of a set, in turn left out for an interval
CHUNK = 8192  # rows that are summed at once, whatever the batches
KINDS = ("features", "spatial")  # of features that have moments
ROWS = frozenset({"features", "logits", "labels"})  # what is kept of single images


@dataclass(frozen=True)
class Features:
    """What an extractor sees in a batch of images."""

    features: Tensor  # (B, D) float32
    spatial: Tensor | None = None  # (B, S) float32: what it sees at each place, in one row
    logits: Tensor | None = None  # (B, K) float32, of the classes that it tells apart


class Extractor(Protocol):
    """What metrics on sets of images look through."""

    revision: ClassVar[int]  # raised when its numbers change
    provides: ClassVar[frozenset[str]]  # of "features", "spatial" and "logits"
    standard: bool  # on it a Frechet distance is FID

    def to(self, device: torch.device) -> "Extractor": ...

    def extract(self, images: Tensor) -> Features:
        """(B, 3, H, W) uint8 -> what it sees."""
        ...


@dataclass(frozen=True)
class FeatureSet:
    """A set of images as metrics see it. What no metric needs is None."""

    num_images: int
    normal: Normal | None = None  # of the features
    spatial: Normal | None = None
    features: Tensor | None = None  # (m, D) float32, of all images or of some drawn by place, in the order of places
    places: Tensor | None = None  # (m,) of these rows in the set
    part: Tensor | None = None  # (m,) which part of the set each row belongs to
    logits: Tensor | None = None  # (n, K) float32, in the order of places
    labels: Tensor | None = None  # (n,)

    def get(self, name: str) -> Any:
        """A field. Raises ValueError where it is not there: references in ADM's layout may lack some."""
        found = getattr(self, name)
        if found is None:
            raise ValueError(
                f"This set of {self.num_images} images has no {name}, which a metric requires. Leave the metric out, or gather the set again."
            )
        return found


class SetMetric(Protocol):
    """One number of a set of images, mostly held against a reference. One plug-in of the config group `distribution`."""

    revision: ClassVar[int]  # raised when its numbers change
    requires: ClassVar[frozenset[str]]  # fields of `FeatureSet` that it reads
    is_distance: ClassVar[bool]  # whether a floor stands beside it: the number of real images against real images
    higher_is_better: ClassVar[bool | None]  # None, or no such attribute: the leaderboard shows it and does not rank it

    def __call__(
        self,
        samples: FeatureSet,
        reference: FeatureSet,
        *,
        paired: bool,  # sample i is made of the reference's image i, so that an interval leaves out both
    ) -> Estimate: ...


SOURCE = {
    "normal": "features",
    "features": "features",
    "spatial": "spatial",
    "logits": "logits",
}  # what an extractor must give for a need


@dataclass
class FeatureAccumulator:
    """One set on its way: `update` by batches, `merge` what other processes gathered, then `finish`.

    Memory does not grow with the images, but for the rows of `features` (`kept` at most), `logits` and `labels` where these are needed.
    """

    num_images: int
    requires: Collection[str]
    kept: int
    _parts: dict[str, list[Moments]] = field(default_factory=dict)
    _waiting: dict[str, list[tuple[Tensor, Tensor]]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    _rows: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        order = torch.randperm(self.num_images, generator=torch.Generator().manual_seed(0))
        self._num_parts = PARTS if self.num_images >= 2 * PARTS else 1
        self._part = torch.empty(self.num_images, dtype=torch.long)
        self._part[order] = torch.arange(self.num_images) % self._num_parts
        self._places = order[: self.kept].sort().values  # of the images whose features are kept
        self._slot = torch.full((self.num_images,), -1)
        self._slot[self._places] = torch.arange(len(self._places))
        self._gathered = torch.zeros(self.num_images, dtype=torch.bool)

    def update(
        self,
        places: Tensor,  # (B,) in the set
        seen: Features,
        labels: Tensor | None = None,  # (B,)
    ) -> None:
        """Adds a batch. Raises ValueError for places that are not in the set or were there before, and for features that are not finite."""
        if len(places) and (places.min() < 0 or places.max() >= self.num_images):
            raise ValueError(f"A set of {self.num_images} images has no places {places.min()} to {places.max()}.")
        if self._gathered[places].any() or len(places.unique()) < len(places):
            raise ValueError("An image was handed over twice: each place of a set is seen once.")
        self._gathered[places] = True
        given = {"features": seen.features, "spatial": seen.spatial, "logits": seen.logits}
        for need in self.requires:
            if need in SOURCE and given[SOURCE[need]] is None:
                raise ValueError(
                    f"A metric needs {SOURCE[need]}, which this extractor does not give. Leave the metric out, or choose another extractor."
                )
        for tensor in given.values():
            if tensor is not None and not torch.isfinite(tensor).all():
                raise ValueError(
                    "Features hold numbers that are not finite (NaN or infinity). Look at the images before measuring them."
                )
        for kind, need in zip(KINDS, ("normal", "spatial")):
            rows = given[kind]
            if need in self.requires and rows is not None:
                self._waiting[kind].append((self._part[places], rows.cpu().float()))
                self._sum(kind)
        if "features" in self.requires:
            slots = self._slot[places]
            self._keep("features", len(self._places), slots[slots >= 0], seen.features.cpu().float()[slots >= 0])
        if "logits" in self.requires and seen.logits is not None:
            self._keep("logits", self.num_images, places, seen.logits.cpu().float())
        if "labels" in self.requires:
            if labels is None:
                raise ValueError("A metric needs the labels of images, and none were handed over.")
            self._keep("labels", self.num_images, places, labels.cpu())

    def merge(self, other: "FeatureAccumulator") -> None:
        """Takes over what was gathered of other images of the same set."""
        if (other.num_images, set(other.requires), other.kept) != (self.num_images, set(self.requires), self.kept):
            raise ValueError("Only gatherings of one set and for the same metrics can be merged.")
        self.take(other.tensors())

    def tensors(self) -> dict[str, Tensor]:
        """What was gathered so far, by name, as a file takes it to another process, which gives it to `take`."""
        found = {"gathered": self._gathered}
        for name, rows in self._rows.items():
            found[name] = rows[self._among(name, self._gathered)]
        for kind in KINDS:
            self._sum(kind, finish=True)
            if kind in self._parts:
                found |= tensors_of(self._parts[kind], kind)
        return found

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes over the `tensors` of what was gathered of other images, for the same metrics."""
        gathered = tensors["gathered"]
        if (self._gathered & gathered).any():
            raise ValueError("An image was handed over twice: each place of a set is seen once.")
        for kind in KINDS:
            self._sum(kind, finish=True)
            if f"{kind}.count" in tensors:
                theirs, own = moments_of(tensors, kind), self._parts.get(kind)
                self._parts[kind] = theirs if own is None else [mine.merged(its) for mine, its in zip(own, theirs)]
        for name in ROWS & tensors.keys():
            among = self._among(name, gathered)
            self._keep(name, len(among), among.nonzero()[:, 0], tensors[name])
        self._gathered |= gathered

    def finish(self) -> FeatureSet:
        """The set. Raises ValueError where images are missing."""
        if not self._gathered.all():
            raise ValueError(f"{int((~self._gathered).sum())} of {self.num_images} images were not seen.")
        for kind in KINDS:
            self._sum(kind, finish=True)
        normal = {kind: Normal.of(parts) for kind, parts in self._parts.items()}
        return FeatureSet(
            num_images=self.num_images,
            normal=normal.get("features"),
            spatial=normal.get("spatial"),
            places=self._places if "features" in self.requires else None,
            part=self._part[self._places] if "features" in self.requires else None,
            **{name: self._rows.get(name) for name in ROWS},
        )

    def _among(self, name: str, places: Tensor) -> Tensor:
        """Which of the rows that are kept under a name are of some places, both told by a mask."""
        return places[self._places] if name == "features" else places

    def _keep(self, name: str, length: int, places: Tensor, rows: Tensor) -> None:
        if name not in self._rows:
            self._rows[name] = rows.new_zeros(length, *rows.shape[1:])
        self._rows[name][places] = rows

    def _sum(self, kind: str, finish: bool = False) -> None:
        """Takes the waiting rows into the moments: whole chunks, so that no batch size shows, and at the end what is left."""
        waiting = self._waiting[kind]
        if sum(len(rows) for _, rows in waiting) < (1 if finish else CHUNK):
            return
        part, rows = torch.cat([part for part, _ in waiting]), torch.cat([rows for _, rows in waiting])
        whole = len(rows) if finish else len(rows) // CHUNK * CHUNK
        self._waiting[kind] = [(part[whole:], rows[whole:])] if whole < len(rows) else []
        for first in range(0, whole, CHUNK):
            chunk, among = rows[first : min(first + CHUNK, whole)], part[first : min(first + CHUNK, whole)]
            own = self._parts.get(kind) or [Moments.none(rows.shape[1]) for _ in range(self._num_parts)]
            self._parts[kind] = [moments.absorb(chunk[among == group]) for group, moments in enumerate(own)]


def gather(
    seen: Features,
    requires: Collection[str],
    *,
    labels: Tensor | None = None,  # (n,)
    kept: int | None = None,
) -> FeatureSet:
    """A set whose features are at hand, in the order of places."""
    count = len(seen.features)
    gathering = FeatureAccumulator(count, requires, count if kept is None else kept)
    gathering.update(torch.arange(count), seen, labels)
    return gathering.finish()


def flattened(seen: FeatureSet) -> Mapping[str, Tensor]:
    """A set as tensors by name, as files keep it; `unflattened` gives it back."""
    found = {"num_images": torch.tensor(seen.num_images)}
    for name in ("features", "places", "part", "logits", "labels"):
        if getattr(seen, name) is not None:
            found[name] = getattr(seen, name)
    for name in ("normal", "spatial"):
        normal = getattr(seen, name)
        if normal is not None:
            found |= tensors_of(normal.parts, name)
    return found


def unflattened(tensors: Mapping[str, Tensor]) -> FeatureSet:
    """The set that `flattened` took apart."""
    normal = {
        name: Normal.of(moments_of(tensors, name)) for name in ("normal", "spatial") if f"{name}.count" in tensors
    }
    rows = {name: tensors.get(name) for name in ("features", "places", "part", "logits", "labels")}
    return FeatureSet(int(tensors["num_images"]), normal.get("normal"), normal.get("spatial"), **rows)


def tensors_of(parts: Sequence[Moments], name: str) -> dict[str, Tensor]:
    """The moments of the parts of a set as tensors under a name."""
    return {
        f"{name}.count": torch.tensor([part.count for part in parts]),
        f"{name}.mean": torch.stack([part.mean for part in parts]),
        f"{name}.scatter": torch.stack([part.scatter for part in parts]),
    }


def moments_of(tensors: Mapping[str, Tensor], name: str) -> list[Moments]:
    """The moments that `tensors_of` put under a name."""
    return [
        Moments(*part)
        for part in zip(tensors[f"{name}.count"].tolist(), tensors[f"{name}.mean"], tensors[f"{name}.scatter"])
    ]
