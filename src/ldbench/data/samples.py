"""Samples on their way to a set: uint8 images in parts, each written in one move, so that what was interrupted goes on; and the folder of
classes that they may leave."""

import io
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from ldbench.io.files import add_path_to_errors, atomic_write


class SampleParts:
    """A folder of `num_samples` images in files of `part_size`; the last may be shorter. A part is there whole or not at all."""

    def __init__(self, folder: Path, *, num_samples: int, part_size: int):
        self.folder = folder
        self.num_samples = num_samples
        self.part_size = part_size

    def ranges(self) -> list[range]:
        """The places of each part's images."""
        return [
            range(first, min(first + self.part_size, self.num_samples))
            for first in range(0, self.num_samples, self.part_size)
        ]

    def path(self, places: range) -> Path:
        """The file of a part, which names its first and last image."""
        return self.folder / f"{places.start:06d}-{places.stop - 1:06d}.npy"

    def missing(self) -> list[range]:
        """The parts that are still to be made."""
        return [places for places in self.ranges() if not self.path(places).is_file()]

    def write(
        self,
        places: range,
        images: Tensor,  # (part, 3, H, W) uint8
    ) -> None:
        """Keeps a part, in one move."""
        content = io.BytesIO()
        np.save(
            content, rearrange(images, "b c h w -> b h w c").numpy()
        )  # to a file numpy would write past a full disk without a word
        with atomic_write(self.path(places)) as scratch:
            scratch.write_bytes(content.getbuffer())

    def read(self) -> Iterator[tuple[range, Tensor]]:  # places, (part, 3, H, W) uint8
        """The parts in order."""
        return ((places, self.load(places)) for places in self.ranges())

    def load(self, places: range) -> Tensor:  # (part, 3, H, W) uint8
        """A part."""
        return rearrange(torch.from_numpy(np.load(self.path(places), allow_pickle=False)), "b h w c -> b c h w")

    def remove(self) -> None:
        """Forgets all parts."""
        shutil.rmtree(self.folder, ignore_errors=True)


def write_pngs(
    folder: Path,
    images: Tensor,  # (K, 3, H, W) uint8
    *,
    first: int,  # the place of images[0] among all samples
    classes: Sequence[str],  # the name of each image's class
) -> None:
    """Writes `folder/<class>/<place>.png` for each image: the layout of a folder of classes, which `data=folder` reads."""
    for place, (image, name) in enumerate(zip(images, classes, strict=True), start=first):
        path = folder / name / f"{place:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        with add_path_to_errors(path):
            Image.fromarray(rearrange(image, "c h w -> h w c").numpy()).save(path)
