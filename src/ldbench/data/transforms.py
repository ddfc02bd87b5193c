"""Converts an image of any mode and size to a square RGB image: a center crop or a random crop.

[0] Dhariwal and Nichol, Diffusion Models Beat GANs on Image Synthesis (ADM), 2021, https://arxiv.org/abs/2105.05233
[1] Szegedy et al., Going Deeper with Convolutions, 2014, https://arxiv.org/abs/1409.4842 (section 6: crops by area and
aspect)
[2] torchvision, RandomResizedCrop,
https://docs.pytorch.org/vision/stable/generated/torchvision.transforms.RandomResizedCrop.html
"""

import math

import torch
from PIL import Image

NUM_TRIES = 10  # [2]

DEEP = {"I": "32-bit integers", "F": "floating point numbers"}  # other modes: 16-bit grays of any byte order

Box = tuple[int, int, int, int]  # left, top, width, height in px


class UnsupportedBitDepth(ValueError):
    """An image has grays of more than 8 bits. The message is a sentence."""


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """The central square of `image`, (size, size) px, as in the ImageNet preprocessing of [0].

    Halved with a box filter while the shorter side is at least twice `size`, then resized to `size` (bicubic), then
    cropped. A smaller image is enlarged.
    """
    image = shrink(image, size)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def random_crop(
    image: Image.Image, size: int, *, scale: tuple[float, float], ratio: tuple[float, float], rng: torch.Generator
) -> Image.Image:
    """A `random_box` of `image`, resized to (size, size) px (bicubic)."""
    left, top, width, height = random_box(image.width, image.height, scale=scale, ratio=ratio, rng=rng)
    crop = image.crop((left, top, left + width, top + height))
    return crop.resize((size, size), resample=Image.Resampling.BICUBIC)


def random_square(image: Image.Image, size: int, *, scale: tuple[float, float], rng: torch.Generator) -> Image.Image:
    """A random square of `image` at a random scale, (size, size) px, as in the ImageNet training of [0].

    The shorter side is resized, as in `center_crop`, to an integer uniform from size / scale[1] to size / scale[0]
    (both rounded up); then a square is cropped at a uniform position. All draws use `rng`. Raises ValueError unless 0 <
    scale[0] <= scale[1] <= 1.
    """
    if not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(
            f"The crop's scale is {tuple(scale)}. "
            "Give the smallest and the largest share of the side, in (0, 1] and in this order."
        )
    smallest, largest = (math.ceil(size / share) for share in (scale[1], scale[0]))
    image = shrink(image, int(torch.randint(smallest, largest + 1, (), generator=rng)))
    left, top = (int(torch.randint(side - size + 1, (), generator=rng)) for side in image.size)
    return image.crop((left, top, left + size, top + size))


def shrink(image: Image.Image, shorter: int) -> Image.Image:
    """`image` resized to a shorter side of that many px: halved with a box filter while at least twice as large, then
    bicubic.
    """
    while min(image.size) >= 2 * shorter:
        image = image.resize((image.width // 2, image.height // 2), resample=Image.Resampling.BOX)
    scale = shorter / min(image.size)
    return image.resize((round(image.width * scale), round(image.height * scale)), resample=Image.Resampling.BICUBIC)


def random_box(
    width: int, height: int, *, scale: tuple[float, float], ratio: tuple[float, float], rng: torch.Generator
) -> Box:
    """A random part of an image of `width` x `height` px, as in [1] with the details of [2].

    Its share of the image's area is uniform in `scale`, its width over height log-uniform in `ratio`, its position
    uniform. If ten draws do not fit, it is the largest central part with an aspect in `ratio`. All draws use `rng`.

    Raises ValueError unless 0 < scale[0] <= scale[1] <= 1 and 0 < ratio[0] <= ratio[1].
    """
    if not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(
            f"The crop's scale is {tuple(scale)}. "
            "Give the smallest and the largest share of the area, in (0, 1] and in this order."
        )
    if not 0 < ratio[0] <= ratio[1]:
        raise ValueError(
            f"The crop's ratio is {tuple(ratio)}. "
            "Give the smallest and the largest width over height, above 0 and in this order."
        )
    for _ in range(NUM_TRIES):
        u = torch.rand(2, generator=rng, dtype=torch.float64).tolist()
        area = width * height * (scale[0] + (scale[1] - scale[0]) * u[0])
        aspect = ratio[0] * (ratio[1] / ratio[0]) ** u[1]
        wide, high = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < high <= height:
            left = int(torch.randint(width - wide + 1, (), generator=rng))
            top = int(torch.randint(height - high + 1, (), generator=rng))
            return left, top, wide, high
    wide, high = width, height
    if width < ratio[0] * height:
        high = max(1, round(width / ratio[0]))
    elif width > ratio[1] * height:
        wide = max(1, round(height * ratio[1]))
    return (width - wide) // 2, (height - high) // 2, wide, high


def to_rgb(image: Image.Image) -> Image.Image:
    """`image` in 8-bit RGB.

    Gray and 1-bit values are repeated, palettes are applied, and transparent images are composited on white. CMYK and
    YCbCr are converted by formula, without a color profile. 16-bit colors lose their lower byte. An EXIF orientation is
    ignored, as in [0].

    Raises UnsupportedBitDepth for grays of more than 8 bits: files do not store their range, and clipping would be
    silently wrong.
    """
    if image.mode.startswith(("I", "F")):
        depth = DEEP.get(image.mode, "16-bit grays")
        raise UnsupportedBitDepth(
            f"It has {depth} (mode {image.mode}), more than 8 bits, of unknown range. Convert it to 8 bits first."
        )
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")
