"""The center crop and the conversion to RGB, on images made by hand."""

import numpy as np
import pytest
from PIL import Image

from ldbench.data.transforms import UnsupportedBitDepth, center_crop, to_rgb


def _picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels.astype(np.uint8))


def _noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3))


def test_an_image_whose_shorter_side_fits_is_only_cropped():
    pixels = _noise(8, 13)
    assert np.array_equal(center_crop(_picture(pixels), 8), pixels[:, 2:10])  # (13 - 8) // 2 = 2
    pixels = _noise(13, 8)
    assert np.array_equal(center_crop(_picture(pixels), 8), pixels[2:10])


def test_a_side_of_four_sizes_is_halved_twice_by_means_of_blocks():
    blocks = np.random.default_rng(0).integers(0, 64, (8, 10, 3)) * 4  # every mean of equal pixels is exact
    pixels = blocks.repeat(4, axis=0).repeat(4, axis=1)
    assert np.array_equal(center_crop(_picture(pixels), 8), blocks[:, 1:9])
    checkers = np.indices((32, 32)).sum(0)[..., None].repeat(3, axis=2) % 2 * 200
    assert np.array_equal(center_crop(_picture(checkers), 8), np.full((8, 8, 3), 100))


def test_below_two_sizes_the_filter_is_bicubic():
    picture = _picture(_noise(15, 21))
    expected = picture.resize((round(21 * 8 / 15), 8), resample=Image.Resampling.BICUBIC)  # 11 x 8
    assert np.array_equal(center_crop(picture, 8), np.array(expected)[:, 1:9])


def test_odd_sides_lose_a_pixel_when_halved():
    picture = _picture(_noise(17, 35))
    expected = picture.resize((17, 8), resample=Image.Resampling.BOX)
    assert np.array_equal(center_crop(picture, 8), np.array(expected)[:, 4:12])


@pytest.mark.parametrize("sides", [(5, 7), (64, 64), (300, 41), (16, 1000)])
def test_the_crop_has_the_size_asked_for(sides):
    assert center_crop(Image.new("RGB", sides), 16).size == (16, 16)


def test_gray_and_palette_become_three_channels():
    assert to_rgb(Image.new("L", (2, 2), 77)).getpixel((0, 0)) == (77, 77, 77)
    assert to_rgb(Image.new("1", (2, 2), 1)).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert to_rgb(palette).getpixel((0, 0)) == (10, 20, 30)


@pytest.mark.parametrize(("alpha", "expected"), [(0, (255, 255, 255)), (255, (200, 100, 0)), (51, (244, 224, 204))])
def test_transparency_lies_on_white(alpha, expected):
    assert to_rgb(Image.new("RGBA", (1, 1), (200, 100, 0, alpha))).getpixel((0, 0)) == expected


def test_a_transparent_palette_color_lies_on_white():
    palette = Image.new("P", (1, 1), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.info["transparency"] = 1
    assert to_rgb(palette).getpixel((0, 0)) == (255, 255, 255)


def test_an_exif_orientation_is_ignored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.new("RGB", (4, 2)).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        assert image.getexif()[0x0112] == 6
        assert to_rgb(image).size == (4, 2)


@pytest.mark.parametrize(
    ("mode", "depth"), [("I", "32-bit integers"), ("F", "floating point numbers"), ("I;16", "16-bit grays")]
)
def test_more_than_eight_bits_are_refused_with_their_depth(mode, depth):
    with pytest.raises(
        UnsupportedBitDepth, match=rf"It has {depth} \(mode {mode}\), more than 8 bits.* Convert it to 8 bits first"
    ):
        to_rgb(Image.new(mode, (2, 2)))


def test_gray_with_transparency_and_cmyk_become_rgb():
    assert to_rgb(Image.new("LA", (1, 1), (0, 51))).getpixel((0, 0)) == (204, 204, 204)
    assert to_rgb(Image.new("CMYK", (1, 1), (255, 0, 0, 0))).getpixel((0, 0)) == (0, 255, 255)
    assert to_rgb(Image.new("CMYK", (1, 1), (0, 0, 0, 255))).getpixel((0, 0)) == (0, 0, 0)


@pytest.mark.parametrize(("width", "height"), [(16, 16), (17, 16), (31, 33), (16, 999), (3, 1), (1, 400), (65, 64)])
def test_a_center_is_bit_exact_to_the_definition_at_odd_and_extreme_sides(width, height):
    size = 8
    picture = expected = _picture(_noise(height, width))
    halvings = max(0, int(np.log2(min(width, height) / size)))  # at exactly two sizes there is one
    for _ in range(halvings):
        expected = expected.resize((expected.width // 2, expected.height // 2), resample=Image.Resampling.BOX)
    scale = size / min(expected.size)
    pixels = np.array(
        expected.resize([round(side * scale) for side in expected.size], resample=Image.Resampling.BICUBIC)
    )
    top, left = (np.array(pixels.shape[:2]) - size) // 2
    assert np.array_equal(center_crop(picture, size), pixels[top : top + size, left : left + size])


def test_at_exactly_two_sizes_the_box_filter_alone_works():
    pixels = _noise(16, 16)
    expected = _picture(pixels).resize((8, 8), resample=Image.Resampling.BOX)
    assert np.array_equal(center_crop(_picture(pixels), 8), np.array(expected))
