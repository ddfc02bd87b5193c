"""Feature extractors: from images to the features that metrics on sets of images compare."""

from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from ldbench.core.pixels import from_uint8, validate_pixels
from ldbench.metrics.feature_set import Features


class Classifier(Protocol):
    """A classifier whose penultimate features describe whole images."""

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, D)."""
        ...

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> logits (B, num_classes)."""
        ...


class NetworkFeatures(nn.Module):
    """The features and logits of a network, frozen, in float32."""

    revision: ClassVar[int] = 1
    provides: ClassVar[frozenset[str]] = frozenset({"features", "logits"})
    standard: ClassVar[bool] = False

    def __init__(self, *, network: Classifier):
        super().__init__()
        assert isinstance(network, nn.Module), (
            "yaml describes a network; the caller builds it and passes the network itself"
        )
        self.network = network.requires_grad_(False).eval()

    @torch.no_grad()
    def extract(
        self,
        images: Tensor,  # (B, 3, H, W) uint8
    ) -> Features:
        """Features and logits of each image. Raises ValueError for pixels that are not uint8."""
        validate_pixels(images)
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            pixels = from_uint8(images)
            return Features(self.network.features(pixels).float(), logits=self.network(pixels).float())

    def features(
        self,
        images: Tensor,  # (B, 3, H, W) uint8
    ) -> Tensor:  # (B, D) float32
        """The features alone."""
        return self.extract(images).features
