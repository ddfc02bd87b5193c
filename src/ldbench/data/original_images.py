"""A split whose items are whole images: center-cropped, or cropped at random by a recipe, whatever stores them."""

import io
from abc import ABC, abstractmethod

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ldbench.core.pixels import from_uint8
from ldbench.data.transforms import center_crop, random_crop, random_square


class OriginalImages(Dataset, ABC):
    """Images with labels, center-cropped to `image_size` as items. A container implements `original`."""

    crops: bool = True  # has `draw` and `draw_square`
    labels: Tensor  # (n,) int64
    image_size: int  # px a side of the items

    @abstractmethod
    def original(self, index: int) -> Image.Image:
        """An image before it is cropped, 8-bit RGB, of any size.

        Raises ValueError with the name of one that cannot be read.
        """

    def encoded(self, index: int) -> tuple[bytes, str]:
        """An image as it is stored, and the extension of its format, such as `.jpg`; as PNG where no image file is.

        Raises ValueError with the name of one that cannot be read.
        """
        return png(self.original(index)), ".png"

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return to_tensor(center_crop(self.original(index), self.image_size)), int(self.labels[index])

    def draw(
        self, index: int, *, scale: tuple[float, float], ratio: tuple[float, float], rng: torch.Generator
    ) -> tuple[Tensor, int]:
        """A random crop of an image (see `transforms.random_crop`), (3, H, W) in [-1, 1], and its label.

        All draws use `rng`.
        """
        crop = random_crop(self.original(index), self.image_size, scale=scale, ratio=ratio, rng=rng)
        return to_tensor(crop), int(self.labels[index])

    def draw_square(self, index: int, *, scale: tuple[float, float], rng: torch.Generator) -> tuple[Tensor, int]:
        """A random square of an image (see `transforms.random_square`), (3, H, W) in [-1, 1], and its label.

        All draws use `rng`.
        """
        square = random_square(self.original(index), self.image_size, scale=scale, rng=rng)
        return to_tensor(square), int(self.labels[index])


def png(image: Image.Image) -> bytes:
    """An image as a PNG file."""
    content = io.BytesIO()
    image.save(content, format="PNG")
    return content.getvalue()


def to_tensor(image: Image.Image) -> Tensor:
    """An 8-bit RGB image as float32 (3, H, W) in [-1, 1]."""
    return from_uint8(rearrange(torch.from_numpy(np.array(image)), "h w c -> c h w"))
