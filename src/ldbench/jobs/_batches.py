"""Sets of images in batches, any of which any process can read."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor
from torch.utils.data import DataLoader

from ldbench.core.interfaces import ImageSet
from ldbench.core.pixels import PixelRule, to_uint8
from ldbench.data.samples import SampleParts
from ldbench.metrics import adm_npz


class Batches(Protocol):
    """A set of images as an extractor sees it."""

    def places(self) -> list[range]:
        """The places of each batch's images, in order."""
        ...

    def read(self, wanted: Sequence[range]) -> Iterator[tuple[Tensor, Tensor | None]]:
        """(B, 3, H, W) uint8 and labels (B,), where it has them, of some of these batches, in order."""
        ...


@dataclass(frozen=True)
class SplitImages:
    """The images of a split. Batches end where its parts do."""

    parts: Sequence[ImageSet]
    pixel_rule: PixelRule
    batch_size: int
    workers: int

    def places(self) -> list[range]:
        """The places of each batch's images, in order."""
        return cut([len(part) for part in self.parts], self.batch_size)

    def read(self, wanted: Sequence[range]) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Some of these batches, in order."""
        first = 0
        for part in self.parts:
            own = [range(at.start - first, at.stop - first) for at in wanted if first <= at.start < first + len(part)]
            for images, labels in DataLoader(part, batch_sampler=own, num_workers=self.workers):
                yield to_uint8(images, self.pixel_rule), labels
            first += len(part)


@dataclass(frozen=True)
class Samples:
    """Samples with their labels. Batches end where the parts do in which they were drawn."""

    parts: SampleParts
    y: Tensor  # (num_samples,)
    batch_size: int

    def places(self) -> list[range]:
        """The places of each batch's images, in order."""
        return cut([len(places) for places in self.parts.ranges()], self.batch_size)

    def read(self, wanted: Sequence[range]) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Some of these batches, in order."""
        for places in self.parts.ranges():
            own = [at for at in wanted if at.start in places]
            images = self.parts.load(places) if own else None
            for at in own:
                assert images is not None
                yield images[at.start - places.start : at.stop - places.start], self.y[at.start : at.stop]


@dataclass(frozen=True)
class FileImages:
    """The images of a reference in ADM's layout, whose labels count for nothing."""

    path: Path
    batch_size: int

    def places(self) -> list[range]:
        """The places of each batch's images, in order."""
        return cut([adm_npz.num_images(self.path)], self.batch_size)

    def read(self, wanted: Collection[range]) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Some of these batches, in order."""
        starts = {at.start for at in wanted}
        for at, images in zip(self.places(), adm_npz.read_images(self.path, self.batch_size), strict=True):
            if at.start in starts:
                yield images, None


def cut(lengths: Sequence[int], batch_size: int) -> list[range]:
    """The places of batches of parts of some lengths, one part behind the other."""
    found, first = [], 0
    for length in lengths:
        found += [
            range(start, min(start + batch_size, first + length)) for start in range(first, first + length, batch_size)
        ]
        first += length
    return found
