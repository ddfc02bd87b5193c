"""Differentiable augmentation of a discriminator's input.

[0] Zhao et al., Differentiable Augmentation for Data-Efficient GAN Training, 2020, https://arxiv.org/abs/2006.10738
"""

from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ldbench.core.distributed import draw_for_global_batch

BRIGHTNESS = 0.5  # half the range of the offset; this and the next three are the strengths of [0]
SATURATION = 1.0  # half the range of the factor around 1
CONTRAST = 0.5
TRANSLATION = 1 / 8  # the largest shift, as a fraction of the side


class DiffAug:
    """Color jitter, shift and cutout, in this order and differentiable.

    Each of the three is applied with `probability` to the whole batch or not at all; its parameters are drawn for each
    image. `cutout` is the side of the square as a fraction of the image's. Pixels shifted in or cut out are 0, the
    middle of [-1, 1]; jittered colors may leave that range. Every call draws from torch's global stream. Raises
    ValueError unless probability and cutout lie in [0, 1].
    """

    def __init__(self, *, probability: float, cutout: float):
        for name, number in (("probability", probability), ("cutout", cutout)):
            if not 0 <= number <= 1:
                raise ValueError(f"The augmentation's {name} must lie in [0, 1], got {number}.")
        self.probability = probability
        self.cutout = cutout

    def __call__(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
    ) -> Tensor:  # (B, 3, H, W)
        """The augmented images."""
        if self.probability == 0:
            return images
        jittered, shifted, cut = (torch.rand(3) < self.probability).tolist()
        if jittered:
            images = jitter_color(images, *uniform(3, images))
        if shifted:
            images = shift(images, offsets(images, TRANSLATION))
        if cut:
            images = cut_out(images, self.cutout, uniform(2, images))
        return images


def uniform(count: int, images: Tensor) -> Tensor:  # (count, B) in [0, 1)
    """`count` uniform numbers for each image."""
    return draw_for_global_batch(
        lambda num_images: torch.rand(count, num_images, device=images.device), len(images), dim=1
    )


def jitter_color(
    images: Tensor,  # (B, 3, H, W)
    brightness: Tensor,  # (B,) in [0, 1]; 0.5 changes nothing
    saturation: Tensor,  # (B,) likewise
    contrast: Tensor,  # (B,) likewise
) -> Tensor:  # (B, 3, H, W)
    """Changes brightness, then saturation, then contrast."""
    swing_b, swing_s, swing_c = (rearrange(2 * u - 1, "b -> b 1 1 1") for u in (brightness, saturation, contrast))
    images = images + BRIGHTNESS * swing_b
    gray = images.mean(dim=1, keepdim=True)
    images = gray + (1 + SATURATION * swing_s) * (images - gray)
    level = images.mean(dim=(1, 2, 3), keepdim=True)
    return level + (1 + CONTRAST * swing_c) * (images - level)


def offsets(images: Tensor, ratio: float) -> Tensor:
    """Random shifts in pixels (2, B), uniform up to `ratio` of height and width in both directions."""
    bounds = [round_half_up(side * ratio) for side in images.shape[2:]]
    drawn = lambda bound, count: torch.randint(-bound, bound + 1, (count,), device=images.device)  # noqa: E731
    return torch.stack([draw_for_global_batch(partial(drawn, bound), len(images)) for bound in bounds])


def shift(
    images: Tensor,  # (B, 3, H, W)
    by: Tensor,  # (2, B) pixels down and to the right
) -> Tensor:  # (B, 3, H, W)
    """Shifts images by integer offsets, padding with zeros."""
    height, width = images.shape[2:]
    padded = F.pad(rearrange(images, "b c h w -> b h w c"), (0, 0, 1, 1, 1, 1))  # pixels outside read the padding
    index = torch.arange(len(images), device=images.device)
    rows = (1 + torch.arange(height, device=images.device) - by[0, :, None]).clamp(0, height + 1)  # (B, H)
    columns = (1 + torch.arange(width, device=images.device) - by[1, :, None]).clamp(0, width + 1)  # (B, W)
    return rearrange(padded[index[:, None, None], rows[:, :, None], columns[:, None, :]], "b h w c -> b c h w")


def cut_out(
    images: Tensor,  # (B, 3, H, W)
    ratio: float,
    center: Tensor,  # (2, B) in [0, 1): from the upper and the left edge
) -> Tensor:  # (B, 3, H, W)
    """Sets a box of `ratio` times the sides to zero; its center lies anywhere in the image, so that it may cross the
    edge.
    """
    inside = []  # (B, H) and (B, W)
    for side, at in zip(images.shape[2:], center, strict=True):
        size = round_half_up(side * ratio)
        num_centers = side + 1 - size % 2  # the center of an even box lies between pixels: one more position
        first = (at * num_centers).long() - size // 2
        distance = torch.arange(side, device=images.device) - first[:, None]
        inside.append((distance >= 0) & (distance < size))
    box = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return images.masked_fill(box, 0.0)


def round_half_up(number: float) -> int:
    """The nearest integer; halves are rounded up."""
    return int(number + 0.5)
