"""Generated samples on disk: uint8 images in parts, each written atomically, so that an interrupted job resumes; and
folders of PNG files.
"""

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
    """A folder of `num_samples` images in files of `part_size`; the last may be shorter.

    A part exists completely or not at all.
    """

    def __init__(self, folder: Path, *, num_samples: int, part_size: int):
        self.folder = folder
        self.num_samples = num_samples
        self.part_size = part_size

    def ranges(self) -> list[range]:
        """The image indices of each part."""
        return [
            range(first, min(first + self.part_size, self.num_samples))
            for first in range(0, self.num_samples, self.part_size)
        ]

    def path(self, indices: range) -> Path:
        """The file of a part, which names its first and last image."""
        return self.folder / f"{indices.start:06d}-{indices.stop - 1:06d}.npy"

    def missing(self) -> list[range]:
        """The parts that are not written yet."""
        return [indices for indices in self.ranges() if not self.path(indices).is_file()]

    def write(
        self,
        indices: range,
        images: Tensor,  # (part, 3, H, W) uint8
    ) -> None:
        """Writes a part atomically."""
        write_array(self.path(indices), rearrange(images, "b c h w -> b h w c").numpy())

    def write_numbers(
        self,
        indices: range,
        numbers: Tensor,  # (part, K) float64
    ) -> None:
        """Writes numbers of a part's images atomically, before the images themselves: `missing` tells of both then."""
        write_array(self.numbers_path(indices), numbers.numpy())

    def read(self) -> Iterator[tuple[range, Tensor]]:  # indices, (part, 3, H, W) uint8
        """The parts in order."""
        return ((indices, self.load(indices)) for indices in self.ranges())

    def load(self, indices: range) -> Tensor:  # (part, 3, H, W) uint8
        """Loads a part."""
        return rearrange(torch.from_numpy(np.load(self.path(indices), allow_pickle=False)), "b h w c -> b c h w")

    def numbers(self) -> Tensor:  # (num_samples, K) float64
        """The numbers of all images, in order."""
        return torch.cat(
            [torch.from_numpy(np.load(self.numbers_path(part), allow_pickle=False)) for part in self.ranges()]
        )

    def numbers_path(self, indices: range) -> Path:
        """The file of the numbers of a part's images."""
        return self.path(indices).with_suffix(".numbers.npy")

    def remove(self) -> None:
        """Deletes all parts."""
        shutil.rmtree(self.folder, ignore_errors=True)


def write_array(path: Path, array: np.ndarray) -> None:
    """Writes an .npy file atomically."""
    content = io.BytesIO()  # numpy does not report a full disk when it writes to a file itself
    np.save(content, array)
    with atomic_write(path) as scratch:
        scratch.write_bytes(content.getbuffer())


def write_pngs(
    folder: Path,
    images: Tensor,  # (K, 3, H, W) uint8
    *,
    first: int,  # the index of images[0] among all samples
    classes: Sequence[str],  # the name of each image's class
) -> None:
    """Writes `folder/<class>/<index>.png` for each image: the class-folder layout that `data=folder` reads."""
    for index, (image, name) in enumerate(zip(images, classes, strict=True), start=first):
        path = folder / name / f"{index:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        with add_path_to_errors(path):
            Image.fromarray(rearrange(image, "c h w -> h w c").numpy()).save(path)
