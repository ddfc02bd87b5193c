"""The latents of a generator's training together with the images that they were encoded from."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ldbench.core.interfaces import ImageSet, LatentSet


class LatentsWithImages(Dataset):
    """Items of a latent set, each with its image: row i is of image i, and row i + number of images of it mirrored.

    Raises ValueError for latents that are not of these images alone.
    """

    def __init__(self, latents: LatentSet, images: ImageSet):
        views, rest = divmod(len(latents), len(images))
        if rest or views not in (1, 2):
            raise ValueError(
                f"{len(latents)} latents are not of {len(images)} images, each once or also mirrored. A loss on "
                "images needs the latents that are encoded here: leave latents.cache out."
            )
        self.latents: Any = latents
        self.images = images
        self.ahead = latents.ahead

    def __len__(self) -> int:
        return len(self.latents)

    def __getitems__(self, items: list[int]) -> tuple[Tensor, Tensor, Tensor]:  # (B, N, C), (B,), (B, 3, H, W)
        views, indices = np.divmod(np.asarray(items, dtype=np.int64) % len(self.latents), len(self.images))
        images = [self.images[index][0] for index in indices.tolist()]
        images = [image.flip(-1) if view else image for image, view in zip(images, views.tolist(), strict=True)]
        return *self.latents.__getitems__(items), torch.stack(images)

    def resident(self, device: torch.device) -> "LatentsWithImages":
        """The same with the latents held on a device; images are read for each batch."""
        return LatentsWithImages(self.latents.resident(device), self.images)
