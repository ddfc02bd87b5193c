"""NetworkTeacher: what a small network, trained to classify, sees at the places of an image."""

from typing import ClassVar, Protocol

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F


class MapNetwork(Protocol):
    """A network with features at the places of an image."""

    map_channels: int

    def map(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, map_channels, h, w)."""


class NetworkTeacher(nn.Module):
    """The maps of a network, frozen, in float32, resampled to the grid that is asked for."""

    revision: ClassVar[int] = 1

    def __init__(self, *, network: MapNetwork):
        super().__init__()
        assert isinstance(network, nn.Module), (
            "yaml describes a network; whoever builds the teacher hands over the network itself"
        )
        self.network = network.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "NetworkTeacher":
        """Frozen networks stay in eval mode."""
        return super().train(False)

    def channels(self, image_size: int, grid: tuple[int, int]) -> int:
        """How many features a place has: the same for every image size and grid."""
        return self.network.map_channels

    @torch.no_grad()
    def forward(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
        grid: tuple[int, int],
    ) -> Tensor:  # (B, P, channels)
        """The features at each place of `grid`, row-major: bilinear, with antialiasing where the grid is coarser than the network's."""
        with torch.autocast(images.device.type, enabled=False):
            places = self.network.map(images.float())
            if places.shape[-2:] != tuple(grid):
                places = F.interpolate(places, size=tuple(grid), mode="bilinear", align_corners=False, antialias=True)
        return rearrange(places, "b d h w -> b (h w) d")
