"""FeatureNetwork: a small convolutional classifier, whose features look at images for a metric or a teacher."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

POOLED = 4  # places along a side that the last features are read from


class FeatureNetwork(nn.Module):
    """Three convolutions with batch norm, the first two of stride 2; a layer of features on their 4 x 4 averages; classes.

    Images of another size are resized. Whoever trains it sets the two RMS buffers, so that features and maps are of unit size.
    Its revision is raised when its numbers change. Raises ValueError unless 16 divides `image_size`.
    """

    revision: ClassVar[int] = 1

    def __init__(self, *, image_size: int, num_classes: int, widths: Sequence[int], num_features: int):
        super().__init__()
        if image_size < 16 or image_size % 16:
            raise ValueError(f"FeatureNetwork takes images of a multiple of 16 px, got image_size {image_size}.")
        if len(widths) != 3:
            raise ValueError(f"FeatureNetwork has three convolutions, got widths {list(widths)}.")
        self.image_size = image_size
        self.num_features = num_features
        self.map_channels = widths[-1]
        stages = [convolution(*shape) for shape in zip((3, *widths), widths, (2, 2, 1))]
        self.stages = nn.Sequential(*stages)
        self.project = nn.Linear(self.map_channels * POOLED**2, num_features)
        self.classify = nn.Linear(num_features, num_classes)
        self.register_buffer("feature_rms", self.project.weight.new_ones(()))
        self.register_buffer("map_rms", self.project.weight.new_ones(()))

    def forward(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
    ) -> Tensor:  # (B, num_classes)
        """The logits of the classes."""
        return self.classify(self.hidden(images))

    def features(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
    ) -> Tensor:  # (B, num_features)
        """What the classes are read from, over its RMS on the training images."""
        return self.hidden(images) / self.feature_rms

    def map(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
    ) -> Tensor:  # (B, map_channels, image_size / 4, image_size / 4)
        """What the last convolution sees at each place, over its RMS on the training images."""
        return self.places(images) / self.map_rms

    def hidden(self, images: Tensor) -> Tensor:
        """The features as they are."""
        pooled = F.avg_pool2d(self.places(images), self.image_size // (4 * POOLED))
        return F.relu(self.project(pooled.flatten(1)))

    def places(self, images: Tensor) -> Tensor:
        """The map as it is."""
        size = (self.image_size, self.image_size)
        if images.shape[-2:] != size:
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)
        return self.stages(images)


def convolution(inside: int, outside: int, stride: int) -> nn.Sequential:
    """3 x 3, normalised, rectified."""
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()
    )
