"""FeatureNetwork: a small convolutional classifier, whose features serve a metric or a teacher."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

POOLED = 4  # the side of the pooled map under the last features


class FeatureNetwork(nn.Module):
    """Three convolutions with batch norm, the first two of stride 2; a layer of features on their 4 x 4 averages;
    classes.

    Images of another size are resized. Its training sets the two RMS buffers, so that features and maps have unit RMS.
    Raise its revision when its numbers change. Raises ValueError unless 16 divides `image_size`.
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
        self.feature_rms: Tensor
        self.map_rms: Tensor
        self.register_buffer("feature_rms", self.project.weight.new_ones(()))
        self.register_buffer("map_rms", self.project.weight.new_ones(()))

    def forward(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
    ) -> Tensor:  # (B, num_classes)
        """The logits of the classes."""
        return self.classify(self.raw_features(images))

    def features(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
    ) -> Tensor:  # (B, num_features)
        """The features before the classifier, divided by their RMS on the training images."""
        return self.raw_features(images) / self.feature_rms

    def map(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
    ) -> Tensor:  # (B, map_channels, image_size / 4, image_size / 4)
        """The map of the last convolution, divided by its RMS on the training images."""
        return self.raw_map(images) / self.map_rms

    def raw_features(self, images: Tensor) -> Tensor:
        """The features before scaling."""
        pooled = F.avg_pool2d(self.raw_map(images), self.image_size // (4 * POOLED))
        return F.relu(self.project(pooled.flatten(1)))

    def raw_map(self, images: Tensor) -> Tensor:
        """The map before scaling."""
        size = (self.image_size, self.image_size)
        if images.shape[-2:] != size:
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)
        return self.stages(images)


def convolution(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """A 3 x 3 convolution with batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )
