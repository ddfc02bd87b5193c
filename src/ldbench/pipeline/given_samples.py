"""Images in memory for job `evaluate`, and data that are no more than a reference's size and classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ldbench.core.interfaces import ImageData, ImageSet
from ldbench.core.pixels import PixelRule, to_uint8
from ldbench.io.files import digest
from ldbench.metrics import adm_npz

Layout = Literal["nchw", "nhwc"]
AXES = {"nchw": "n c h w -> n c h w", "nhwc": "n h w c -> n c h w"}
BEYOND = 1.0  # of a range's width: what a network overshoots is clamped, and other numbers are of another range
BATCH = 256  # images that are converted at a time


class NoImages:
    """Image data of which only the size and the number of classes are known: samples beside a reference's file, or
    beside their originals.
    """

    def __init__(self, name: str, image_size: int, num_classes: int):
        self.name = name
        self.image_size = image_size
        self.num_classes = num_classes
        self.class_names = tuple(map(str, range(num_classes)))
        self.label_safe_flips = False
        self.fingerprint = digest({"images": None, "image_size": image_size, "num_classes": num_classes})
        self.train: ImageSet = []
        self.test: ImageSet = []


def data_of_file(path: Path) -> ImageData:
    """The size and the classes of the images in an `.npz` of ADM's layout. Raises ValueError for one without images."""
    if not adm_npz.has_images(path):
        raise ValueError(
            f"reference={path} holds statistics and no images, so the size of images is not known. Give the data too, "
            "by reference='imagenet256:DIR' and protocol={'reference': PATH}."
        )
    labels = adm_npz.read_labels(path)
    return data_of_size(path.stem, adm_npz.image_size(path), None if labels is None else labels)


def data_of_size(name: str, size: tuple[int, int], labels: Tensor | None) -> ImageData:
    """Data of a size and of the classes of some labels. Raises ValueError for images that are not square."""
    height, width = size
    if height != width:
        raise ValueError(f"The images of {name} have {width} x {height} px, and only square images are compared.")
    return NoImages(name, height, 1 if labels is None else int(labels.max()) + 1)


@dataclass(frozen=True)
class GivenImages:
    """Images in memory, and what their numbers mean.

    Raises ValueError where axes, values or labels could mean several things, or nothing.
    """

    what: str  # the argument's name
    images: Tensor  # (n, 3, h, w) or (n, h, w, 3)
    layout: Layout | None  # None: the shape says it
    value_range: tuple[float, float] | None  # of black and white; None: 8 bits
    labels: Tensor | None  # (n,)

    def __post_init__(self) -> None:
        layout_of(self.images, self.layout, self.what)
        validate_values(self.images, self.value_range, self.what)

    @property
    def axes(self) -> str:
        """Their axes, as einops takes them to (n, 3, h, w)."""
        return AXES[layout_of(self.images, self.layout, self.what)]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width (px)."""
        height, width = rearrange(self.images[:1], self.axes).shape[2:]
        return int(height), int(width)

    def write(self, path: Path, rule: PixelRule) -> None:
        """Writes them to an `.npz` in ADM's layout, a batch at a time."""
        batches = (as_uint8(rearrange(part, self.axes), self.value_range, rule) for part in self.images.split(BATCH))
        adm_npz.write(path, batches, len(self.images), labels=self.labels)


def layout_of(images: Tensor, layout: Layout | None, what: str) -> Layout:
    """Which axis of images is that of colors. Raises ValueError where it is none, or may be two."""
    if images.ndim != 4 or not len(images):
        raise ValueError(f"{what} must be images (n, 3, h, w) or (n, h, w, 3), got {tuple(images.shape)}.")
    possible: list[Layout] = [name for name, axis in (("nchw", 1), ("nhwc", 3)) if images.shape[axis] == 3]  # type: ignore[misc]
    if layout is not None and layout not in AXES:
        raise ValueError(f"layout must be 'nchw' or 'nhwc', got {layout!r}.")
    if layout is not None and layout not in possible:
        raise ValueError(
            f"{what} has the shape {tuple(images.shape)}, which has no 3 colors as layout={layout!r} says."
        )
    if layout is None and len(possible) != 1:
        cure = "Say which: layout='nchw' or 'nhwc'." if possible else "Gray images: repeat their channel."
        raise ValueError(
            f"{what} has the shape {tuple(images.shape)}: {'either' if possible else 'no'} axis of colors. {cure}"
        )
    return layout or possible[0]


def validate_values(images: Tensor, value_range: tuple[float, float] | None, what: str) -> None:
    """Raises ValueError for floats without a range, or far from it, and for integers other than 8 bits."""
    if images.dtype == torch.uint8:
        if value_range is not None:
            raise ValueError(f"{what} has 8 bits, from 0 to 255: leave value_range out.")
        return
    if not images.is_floating_point():
        raise ValueError(f"{what} must be 8-bit (uint8) or floating-point images, got {images.dtype}.")
    if value_range is None:
        raise ValueError(
            f"{what} holds floats, and nothing says which of them are black and white. Say value_range=(-1, 1), (0, 1) "
            "or (0, 255), or give 8-bit images."
        )
    low, high = value_range
    if not low < high:
        raise ValueError(f"value_range must be two ascending numbers, such as (-1, 1) or (0, 1), got {value_range}.")
    least, most = images.min().item(), images.max().item()
    if not (np.isfinite(least) and np.isfinite(most)):
        raise ValueError(f"{what} holds pixels that are not finite (NaN or infinity). Find their cause first.")
    slack = BEYOND * (high - low)
    if least < low - slack or most > high + slack:
        raise ValueError(
            f"{what} holds values from {least:.4g} to {most:.4g}, far from value_range={value_range}. Say their range."
        )


def as_uint8(images: Tensor, value_range: tuple[float, float] | None, rule: PixelRule) -> Tensor:
    """(B, 3, H, W) uint8."""
    if value_range is None:
        return images.cpu().contiguous()
    low, high = value_range
    scaled = images.detach().cpu().double()
    scaled = scaled if (low, high) == (-1, 1) else (scaled - low) * (2 / (high - low)) - 1
    return to_uint8(scaled, rule).contiguous()


def validated_labels(labels: Sequence[int] | Tensor | np.ndarray, count: int) -> Tensor:
    """(n,) int64. Raises ValueError for anything but one whole number from 0 for each image."""
    found = torch.as_tensor(labels)
    if tuple(found.shape) != (count,) or found.is_floating_point() or found.dtype == torch.bool or found.min() < 0:
        raise ValueError(
            f"labels must be one whole number from 0 for each of the {count} images, got {tuple(found.shape)} "
            f"{found.dtype}."
        )
    return found.to("cpu", torch.int64)
