"""From a picture of any mode and size to a square RGB picture.

[0] Dhariwal and Nichol, Diffusion Models Beat GANs on Image Synthesis (ADM), 2021, https://arxiv.org/abs/2105.05233
"""

from PIL import Image


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """The central square of `image`, (size, size) px, as [0] prepares ImageNet.

    Halved with a box filter while the shorter side is at least twice `size`, then brought to `size` with a bicubic filter, then cropped.
    A smaller image is enlarged.
    """
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), resample=Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), resample=Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def to_rgb(image: Image.Image) -> Image.Image:
    """`image` in 8-bit RGB: grey is repeated, a palette is looked up, transparency lies on white.

    An EXIF orientation is ignored, as in [0]: pixels are taken in the order in which they are stored.
    Raises ValueError for greys of more than 8 bits, whose range a file does not tell.
    """
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"Its pixel mode is {image.mode}, more than 8 bits a channel. Convert it to 8 bits first.")
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")
