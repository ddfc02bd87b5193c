"""Sets in batches: any share of them equals what a whole pass reads at these indices."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from ldbench.core.pixels import to_uint8
from ldbench.data.samples import SampleParts
from ldbench.jobs._batches import Batches, FileImages, Samples, SplitImages
from ldbench.metrics import adm_npz
from ldbench.runtime.workers import split_evenly

IMAGES = torch.rand(23, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
Y = torch.arange(23)


def build(kind: str, folder: Path) -> Batches:
    if kind == "split":
        return SplitImages([TensorDataset(IMAGES[:11], Y[:11]), TensorDataset(IMAGES[11:], Y[11:])], "round", 4, 0)
    if kind == "samples":
        parts = SampleParts(folder / "parts", num_samples=23, part_size=10)
        for indices in parts.ranges():
            parts.write(indices, to_uint8(IMAGES)[list(indices)])
        return Samples(parts, Y, 4)
    adm_npz.write(folder / "images.npz", [to_uint8(IMAGES)], 23)
    return FileImages(folder / "images.npz", 4)


def read_all(images: Batches, ranges: list[range]) -> tuple[Tensor, list[Tensor | None]]:
    batches, labels = zip(*images.read(ranges), strict=True)
    assert [len(batch) for batch in batches] == [len(batch) for batch in ranges]
    return torch.cat(batches), list(labels)


@pytest.mark.parametrize(
    ("kind", "starts"),
    [("split", [0, 4, 8, 11, 15, 19]), ("samples", [0, 4, 8, 10, 14, 18, 20]), ("file", [0, 4, 8, 12, 16, 20])],
)
@pytest.mark.parametrize("num_processes", [1, 2, 5])
def test_shares_are_read_as_the_whole(tmp_path: Path, kind: str, starts: list[int], num_processes: int) -> None:
    images = build(kind, tmp_path)
    assert [batch.start for batch in images.ranges()] == starts
    read = [read_all(images, list(share)) for share in split_evenly(images.ranges(), num_processes)]
    assert torch.equal(torch.cat([batch for batch, _ in read]), to_uint8(IMAGES))
    labels = [label for _, labels in read for label in labels]
    assert labels == [None] * 6 if kind == "file" else torch.equal(torch.cat(labels), Y)
