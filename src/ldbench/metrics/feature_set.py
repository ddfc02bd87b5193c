"""FeatureSet: the features of a set of images that metrics need, accumulated in one pass, in any order.

Rows are stored by the image's index in its set, and the parts that intervals leave out are drawn by index, so that
nothing depends on batches, order, workers or processes. The parts of a set whose labels were chosen, such as samples
with balanced labels, are drawn within labels: what was chosen does not vary.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from safetensors.torch import save
from torch import Tensor

from ldbench.core.estimate import Estimate
from ldbench.metrics.moments import Moments, SetGaussian

REVISION = 1  # raised when what is accumulated from the same features changes
PARTS = 10  # of a set, each left out in turn for an interval
PAIRS: tuple[tuple[int, int], ...] = tuple(  # of parts, left out together: each part in three, as in a tournament
    (min(pair), max(pair))
    for turn in range(3)
    for pair in (
        (PARTS - 1, turn),
        *(((turn + k) % (PARTS - 1), (turn - k) % (PARTS - 1)) for k in range(1, PARTS // 2)),
    )
)
CHUNK = 8192  # rows that are summed at once, for any batch size
MOMENT_KINDS = ("features", "spatial")  # features whose moments are accumulated
ROW_FIELDS = frozenset({"features", "logits", "labels"})  # what is stored of single images


@dataclass(frozen=True)
class Features:
    """An extractor's output for a batch of images."""

    features: Tensor  # (B, D) float32
    spatial: Tensor | None = None  # (B, S) float32: features of all positions in one row
    logits: Tensor | None = None  # (B, K) float32, of the extractor's classes


class Extractor(Protocol):
    """A feature extractor for metrics on sets of images.

    Attributes that it may have: `statistics`, see `statistics_origin`, and `widths` of its features, by field of
    `FeatureSet`, which such files must have.
    """

    revision: ClassVar[int]  # raised when its numbers change
    provides: ClassVar[frozenset[str]]  # of "features", "spatial" and "logits"
    standard: bool  # whether a Frechet distance on it is FID

    def to(self, device: torch.device) -> "Extractor":
        """Itself, moved to a device."""
        ...

    def extract(self, images: Tensor) -> Features:
        """(B, 3, H, W) uint8 -> features."""
        ...


ADM, CLEAN_FID = "adm", "clean-fid"  # whose files contain a mean and a covariance of an extractor's features


def statistics_origin(extractor: object) -> str | None:
    """Whose files of statistics are of the features of an extractor, or of a class of extractors; None: nobody's."""
    standard = getattr(extractor, "standard", True)  # of a class that does not know its weights: it may be
    origin: str | None = getattr(extractor, "statistics", ADM if standard else None)
    return origin


@dataclass(frozen=True)
class FeatureSet:
    """The features of a set of images. Fields that no metric needs are None."""

    num_images: int
    normal: SetGaussian | None = None  # of the features
    spatial: SetGaussian | None = None
    features: Tensor | None = None  # (m, D) float32, of all images or of a random subset, by index
    indices: Tensor | None = None  # (m,) of these rows in the set
    part: Tensor | None = None  # (m,) the part of the set of each row
    logits: Tensor | None = None  # (n, K) float32, by index
    labels: Tensor | None = None  # (n,)

    def get(self, name: str) -> Any:
        """A field of this name. Raises ValueError where it is missing: references in ADM's layout may lack some."""
        value = getattr(self, name)
        if value is None:
            raise ValueError(
                f"This set of {self.num_images} images has no {name}, which a metric requires. "
                "Leave the metric out, or extract the features of the set again."
            )
        return value


class SetMetric(Protocol):
    """One number of a set of images, usually compared with a reference set.

    A plug-in of the config group `distribution`. Class attributes that it may have:

    - `of_pairs = False`: it says nothing about reconstructions of the reference itself, and is left out there.
    - `compares = "heldout"`: it is called with the real images that are not in the reference as `heldout`, and measures
      generated images alone.
    - `compares = "splits"`: it is called with the training images as `reference` and with the held-out images as
      `heldout`, and measures generated images alone.
    - `reference_requires`: fields of the reference that its `floor` needs besides.

    Methods that it may have: `floor`, see `metrics.frechet`, and `suffix(samples, reference)`, of its name.
    """

    revision: ClassVar[int]  # raised when its numbers change
    requires: ClassVar[frozenset[str]]  # fields of `FeatureSet` that it reads
    is_distance: ClassVar[bool]
    # None, or no such attribute: shown on the leaderboard and not ranked
    higher_is_better: ClassVar[bool | None]

    def __call__(
        self,
        samples: FeatureSet,
        reference: FeatureSet,
        *,
        paired: bool,  # sample i is the reconstruction of reference image i, so that an interval leaves out both
    ) -> Estimate:
        """The metric, with its 95 % interval where it has one."""
        ...


SOURCE = {  # required field of a set -> what the extractor must provide
    "normal": "features",
    "features": "features",
    "spatial": "spatial",
    "logits": "logits",
}


@dataclass
class FeatureAccumulator:
    """Accumulates the features of one set:

    `update` with batches, `merge` the accumulators of other processes, then `finish`.

    Memory does not grow with the number of images, except for the rows of `features` (at most `kept`), `logits` and
    `labels` where required.
    """

    num_images: int
    requires: Collection[str]
    kept: int
    strata: Tensor | None = None  # (num_images,) labels that parts are drawn within; None: images are independent
    _parts: dict[str, list[Moments]] = field(default_factory=dict)
    _pending: dict[str, list[tuple[Tensor, Tensor]]] = field(
        default_factory=lambda: {kind: [] for kind in MOMENT_KINDS}
    )
    _rows: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        order = torch.randperm(self.num_images, generator=torch.Generator().manual_seed(0))
        self._num_parts = PARTS if self.num_images >= 2 * PARTS else 1
        self._part = torch.empty(self.num_images, dtype=torch.long)
        dealt = order if self.strata is None else order[self.strata[order].argsort(stable=True)]
        self._part[dealt] = torch.arange(self.num_images) % self._num_parts
        self._indices = order[: self.kept].sort().values  # of the images whose features are stored
        self._slot = torch.full((self.num_images,), -1)
        self._slot[self._indices] = torch.arange(len(self._indices))
        self._seen = torch.zeros(self.num_images, dtype=torch.bool)

    def update(
        self,
        indices: Tensor,  # (B,) in the set
        batch: Features,
        labels: Tensor | None = None,  # (B,)
    ) -> None:
        """Adds a batch.

        Raises ValueError for indices out of range or added before, and for features that are not finite.
        """
        if len(indices) and (indices.min() < 0 or indices.max() >= self.num_images):
            raise ValueError(f"A set of {self.num_images} images has no indices {indices.min()} to {indices.max()}.")
        if self._seen[indices].any() or len(indices.unique()) < len(indices):
            raise ValueError("An image was added twice: each index of a set is added once.")
        self._seen[indices] = True
        outputs = {"features": batch.features, "spatial": batch.spatial, "logits": batch.logits}
        for field_name in self.requires:
            if field_name in SOURCE and outputs[SOURCE[field_name]] is None:
                raise ValueError(
                    f"A metric requires {SOURCE[field_name]}, which this extractor does not provide. "
                    "Leave the metric out, or choose another extractor."
                )
        for tensor in outputs.values():
            if tensor is not None and not torch.isfinite(tensor).all():
                raise ValueError("The features contain NaN or infinity. Check the images before measuring them.")
        for kind, field_name in zip(MOMENT_KINDS, ("normal", "spatial")):
            rows = outputs[kind]
            if field_name in self.requires and rows is not None:
                self._pending[kind].append((self._part[indices], rows.cpu().float()))
                self._sum(kind)
        if "features" in self.requires:
            slots = self._slot[indices]
            self._store("features", len(self._indices), slots[slots >= 0], batch.features.cpu().float()[slots >= 0])
        if "logits" in self.requires and batch.logits is not None:
            self._store("logits", self.num_images, indices, batch.logits.cpu().float())
        if "labels" in self.requires:
            if labels is None:
                raise ValueError("A metric requires the labels of images, and none were given.")
            self._store("labels", self.num_images, indices, labels.long().cpu())

    def merge(self, other: "FeatureAccumulator") -> None:
        """Adds what another accumulator collected from other images of the same set."""
        if (other.num_images, set(other.requires), other.kept) != (self.num_images, set(self.requires), self.kept):
            raise ValueError("Only accumulators of the same set and for the same metrics can be merged.")
        self.merge_tensors(other.tensors())

    def tensors(self) -> dict[str, Tensor]:
        """What was accumulated so far, by name, for a file that another process passes to `merge_tensors`."""
        tensors = {"gathered": self._seen}
        for name, rows in self._rows.items():
            tensors[name] = rows[self._row_mask(name, self._seen)]
        for kind in MOMENT_KINDS:
            self._sum(kind, finish=True)
            if kind in self._parts:
                tensors |= moments_to_tensors(self._parts[kind], kind)
        return tensors

    def merge_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Adds the `tensors` that another accumulator collected from other images, for the same metrics."""
        seen = tensors["gathered"]
        if (self._seen & seen).any():
            raise ValueError("An image was added twice: each index of a set is added once.")
        for kind in MOMENT_KINDS:
            self._sum(kind, finish=True)
            if f"{kind}.count" in tensors:
                others, own = moments_from_tensors(tensors, kind), self._parts.get(kind)
                self._parts[kind] = others if own is None else [a.merged(b) for a, b in zip(own, others)]
        for name in ROW_FIELDS & tensors.keys():
            mask = self._row_mask(name, seen)
            self._store(name, len(mask), mask.nonzero()[:, 0], tensors[name])
        self._seen |= seen

    def finish(self) -> FeatureSet:
        """Returns the set. Raises ValueError where images are missing."""
        if not self._seen.all():
            raise ValueError(f"{int((~self._seen).sum())} of {self.num_images} images were not added.")
        for kind in MOMENT_KINDS:
            self._sum(kind, finish=True)
        normal = {kind: SetGaussian.of(parts) for kind, parts in self._parts.items()}
        return FeatureSet(
            num_images=self.num_images,
            normal=normal.get("features"),
            spatial=normal.get("spatial"),
            indices=self._indices if "features" in self.requires else None,
            part=self._part[self._indices] if "features" in self.requires else None,
            **{name: self._rows.get(name) for name in ROW_FIELDS},
        )

    def _row_mask(self, name: str, images: Tensor) -> Tensor:
        """A mask of images as a mask of the rows that are stored under a name."""
        return images[self._indices] if name == "features" else images

    def _store(self, name: str, length: int, positions: Tensor, rows: Tensor) -> None:
        if name not in self._rows:
            self._rows[name] = rows.new_zeros(length, *rows.shape[1:])
        self._rows[name][positions] = rows

    def _sum(self, kind: str, finish: bool = False) -> None:
        """Adds pending rows to the moments: whole chunks, so that the batch size changes nothing, and with `finish`
        the remainder.
        """
        pending = self._pending[kind]
        if sum(len(rows) for _, rows in pending) < (1 if finish else CHUNK):
            return
        part, rows = torch.cat([part for part, _ in pending]), torch.cat([rows for _, rows in pending])
        whole = len(rows) if finish else len(rows) // CHUNK * CHUNK
        self._pending[kind] = [(part[whole:], rows[whole:])] if whole < len(rows) else []
        for first in range(0, whole, CHUNK):
            chunk, chunk_part = rows[first : min(first + CHUNK, whole)], part[first : min(first + CHUNK, whole)]
            own = self._parts.get(kind) or [Moments.empty(rows.shape[1]) for _ in range(self._num_parts)]
            self._parts[kind] = [moments.absorb(chunk[chunk_part == group]) for group, moments in enumerate(own)]


def gather(
    features: Features,
    requires: Collection[str],
    *,
    labels: Tensor | None = None,  # (n,)
    strata: Tensor | None = None,  # (n,)
    kept: int | None = None,
) -> FeatureSet:
    """The set of features that are all in memory, in order."""
    count = len(features.features)
    accumulator = FeatureAccumulator(count, requires, count if kept is None else kept, strata)
    accumulator.update(torch.arange(count), features, labels)
    return accumulator.finish()


STORED_AS = {"features": "features", "indices": "places", "part": "part", "logits": "logits", "labels": "labels"}


def set_to_tensors(features: FeatureSet) -> Mapping[str, Tensor]:
    """A set as tensors by name, for files; `set_from_tensors` is the inverse."""
    tensors = {"num_images": torch.tensor(features.num_images)}
    for name, key in STORED_AS.items():
        if getattr(features, name) is not None:
            tensors[key] = getattr(features, name)
    for name in ("normal", "spatial"):
        normal = getattr(features, name)
        if normal is not None:
            tensors |= moments_to_tensors(normal.parts, name)
    return tensors


def digest(features: FeatureSet) -> str:
    """The sha256 of a set."""
    tensors = {name: tensor.contiguous() for name, tensor in set_to_tensors(features).items()}
    return hashlib.sha256(save(tensors)).hexdigest()


def set_from_tensors(tensors: Mapping[str, Tensor]) -> FeatureSet:
    """The set that `set_to_tensors` turned into tensors."""
    normal = {
        name: SetGaussian.of(moments_from_tensors(tensors, name))
        for name in ("normal", "spatial")
        if f"{name}.count" in tensors
    }
    rows = {name: tensors.get(key) for name, key in STORED_AS.items()}
    return FeatureSet(int(tensors["num_images"]), normal.get("normal"), normal.get("spatial"), **rows)


def moments_to_tensors(parts: Sequence[Moments], name: str) -> dict[str, Tensor]:
    """The moments of the parts of a set as tensors whose keys begin with `name`."""
    return {
        f"{name}.count": torch.tensor([part.count for part in parts]),
        f"{name}.mean": torch.stack([part.mean for part in parts]),
        f"{name}.scatter": torch.stack([part.scatter for part in parts]),
    }


def moments_from_tensors(tensors: Mapping[str, Tensor], name: str) -> list[Moments]:
    """The inverse of `moments_to_tensors`."""
    return [
        Moments(*part)
        for part in zip(tensors[f"{name}.count"].tolist(), tensors[f"{name}.mean"], tensors[f"{name}.scatter"])
    ]
