"""A metric of reconstructions: how much brighter or darker they are than their images."""

from typing import ClassVar

from torch import Tensor


class Example:
    """The absolute difference of mean levels, in [0, 255] times `scale`, by image."""

    revision: ClassVar[int] = 1  # raised when a change of code changes the numbers
    higher_is_better: ClassVar[bool | None] = False  # None: shown, and not ranked

    def __init__(self, *, scale: float):
        self.scale = scale

    def __call__(
        self,
        images: Tensor,  # (B, 3, H, W) uint8
        recon: Tensor,  # (B, 3, H, W) uint8
    ) -> Tensor:  # (B,) float64
        """The number of each image."""
        levels, others = (x.double().mean(dim=(1, 2, 3)) for x in (images, recon))
        return self.scale * (levels - others).abs()
