"""NetworkTeacher: the feature maps of a small classifier."""

from typing import ClassVar, Protocol

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F


class MapNetwork(Protocol):
    """A network with a feature map."""

    map_channels: int

    def map(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, map_channels, h, w)."""


class NetworkTeacher(nn.Module):
    """The feature maps of a frozen network, in float32, resampled to the requested grid."""

    revision: ClassVar[int] = 1

    def __init__(self, *, network: MapNetwork):
        super().__init__()
        assert isinstance(network, nn.Module), "the teacher needs the network itself, not its config"
        self.network = network.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "NetworkTeacher":
        """Does nothing: the network stays in eval mode."""
        return super().train(False)

    def channels(self, image_size: int, grid: tuple[int, int]) -> int:
        """The number of features per position: the same for every image size and grid."""
        return self.network.map_channels

    @torch.no_grad()
    def forward(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
        grid: tuple[int, int],
    ) -> Tensor:  # (B, P, channels)
        """The features at each position of `grid`, row-major: bilinear, with antialiasing if the grid is coarser than
        the network's.
        """
        with torch.autocast(images.device.type, enabled=False):
            maps = self.maps(images)
            if maps.shape[-2:] != tuple(grid):
                maps = F.interpolate(maps, size=tuple(grid), mode="bilinear", align_corners=False, antialias=True)
        return rearrange(maps, "b d h w -> b (h w) d")

    def maps(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
    ) -> Tensor:  # (B, channels, h, w)
        """The network's maps at their own size, with gradients to the images."""
        with torch.autocast(images.device.type, enabled=False):
            return self.network.map(images.float())
