"""Extractors: images to the features that distances between sets of images are measured on."""

from collections.abc import Callable
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from ldbench.core.pixels import from_uint8


class ImageFeatures(Protocol):
    """A network with features of whole images."""

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, D)."""
        ...

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, num_classes), the logits of classes."""
        ...


class NetworkFeatures(nn.Module):
    """The features of a network, frozen, in float32."""

    revision: ClassVar[int] = 1

    def __init__(self, *, network: ImageFeatures):
        super().__init__()
        assert isinstance(network, nn.Module), "yaml describes a network; whoever builds the extractor hands over the network itself"
        self.network = network.requires_grad_(False).eval()

    @torch.no_grad()
    def features(
        self,
        images: Tensor,  # (B, 3, H, W) uint8
    ) -> Tensor:  # (B, D) float32
        """What the network sees in each image. Raises ValueError for pixels that are not uint8."""
        return self.look(self.network.features, images).float()

    @torch.no_grad()
    def classes(
        self,
        images: Tensor,  # (B, 3, H, W) uint8
    ) -> Tensor:  # (B,)
        """The class that the network sees in each image. Raises ValueError for pixels that are not uint8."""
        return self.look(self.network, images).argmax(dim=1)

    @staticmethod
    def look(sight: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """What a part of the network makes of images, by kernels that are the same every time."""
        if images.dtype != torch.uint8:
            raise ValueError(f"Extractors look at uint8 images, got {images.dtype}. Convert with core.pixels.to_uint8 by the protocol's rule.")
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            return sight(from_uint8(images))
