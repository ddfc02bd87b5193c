"""Sets of images in batches; any process can read any of the batches."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor
from torch.utils.data import DataLoader

from ldbench.core.interfaces import ImageSet
from ldbench.core.pixels import PixelRule, to_uint8
from ldbench.data.samples import SampleParts
from ldbench.metrics import adm_npz


class Batches(Protocol):
    """A set of images as uint8 batches."""

    def ranges(self) -> list[range]:
        """The indices of each batch's images, in order."""
        ...

    def read(self, ranges: Sequence[range]) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Images (B, 3, H, W) uint8 and labels (B,), or None without labels, of some of these batches, in order."""
        ...


@dataclass(frozen=True)
class SplitImages:
    """The images of a split. No batch crosses the border of two parts."""

    parts: Sequence[ImageSet]
    pixel_rule: PixelRule
    batch_size: int
    workers: int

    def ranges(self) -> list[range]:
        """The indices of each batch's images, in order."""
        return split_into_batches([len(part) for part in self.parts], self.batch_size)

    def read(self, ranges: Sequence[range]) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Images and labels of some of these batches, in order."""
        first = 0
        for part in self.parts:
            in_part = [
                range(batch.start - first, batch.stop - first)
                for batch in ranges
                if first <= batch.start < first + len(part)
            ]
            loader: DataLoader[Any] = DataLoader(part, batch_sampler=in_part, num_workers=self.workers)  # type: ignore[arg-type]
            for images, labels in loader:
                yield to_uint8(images, self.pixel_rule), labels
            first += len(part)


@dataclass(frozen=True)
class Samples:
    """Generated samples with their labels. No batch crosses the border of two parts."""

    parts: SampleParts
    y: Tensor  # (num_samples,)
    batch_size: int

    def ranges(self) -> list[range]:
        """The indices of each batch's images, in order."""
        return split_into_batches([len(part) for part in self.parts.ranges()], self.batch_size)

    def read(self, ranges: Sequence[range]) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Images and labels of some of these batches, in order."""
        for part in self.parts.ranges():
            in_part = [batch for batch in ranges if batch.start in part]
            images = self.parts.load(part) if in_part else None
            for batch in in_part:
                assert images is not None
                yield images[batch.start - part.start : batch.stop - part.start], self.y[batch.start : batch.stop]


@dataclass(frozen=True)
class FileImages:
    """The images of a reference in ADM's layout, without their labels."""

    path: Path
    batch_size: int

    def ranges(self) -> list[range]:
        """The indices of each batch's images, in order."""
        return split_into_batches([adm_npz.num_images(self.path)], self.batch_size)

    def read(self, ranges: Collection[range]) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Images and labels of some of these batches, in order."""
        starts = {batch.start for batch in ranges}
        for batch, images in zip(self.ranges(), adm_npz.read_images(self.path, self.batch_size), strict=True):
            if batch.start in starts:
                yield images, None


def split_into_batches(lengths: Sequence[int], batch_size: int) -> list[range]:
    """The indices of each batch of consecutive parts of these lengths."""
    batches, first = [], 0
    for length in lengths:
        batches += [
            range(start, min(start + batch_size, first + length)) for start in range(first, first + length, batch_size)
        ]
        first += length
    return batches
