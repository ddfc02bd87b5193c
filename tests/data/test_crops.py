"""Random-resized crops, and the center crop against a second reading of its definition."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from ldbench.data.transforms import center_crop, random_box, random_crop, random_square, shrink

RATIO = (3 / 4, 4 / 3)


def boxes(width: int, height: int, count: int, scale: tuple[float, float] = (0.25, 1.0)) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.tensor(
        [random_box(width, height, scale=scale, ratio=RATIO, rng=rng) for _ in range(count)], dtype=torch.float64
    )


def test_boxes_lie_in_the_image_and_keep_to_area_and_aspect() -> None:
    left, top, wide, high = boxes(200, 160, 2000).T
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (left + wide <= 200).all()
    assert (top + high <= 160).all()
    share = wide * high / (200 * 160)
    assert share.min() > 0.24
    assert share.max() <= 1.0
    assert ((wide / high > 0.73) & (wide / high < 1.37)).all()


def test_their_statistics_are_those_of_torchvision() -> None:
    ours = boxes(200, 160, 4000)
    torch.manual_seed(0)
    image = Image.new("RGB", (200, 160))
    params = [RandomResizedCrop.get_params(image, [0.25, 1.0], list(RATIO)) for _ in range(4000)]
    theirs = torch.tensor([(left, top, wide, high) for top, left, high, wide in params], dtype=torch.float64)
    assert (ours.mean(0) - theirs.mean(0)).abs().max() < 2.5
    assert (ours.std(0) - theirs.std(0)).abs().max() < 2.0


@pytest.mark.parametrize(("size", "expected"), [((1000, 10), (493, 0, 13, 10)), ((10, 1000), (0, 493, 10, 13))])
def test_where_no_draw_fits_the_largest_central_part_is_taken(size: tuple[int, int], expected: tuple[int, ...]) -> None:
    assert random_box(*size, scale=(0.9, 1.0), ratio=RATIO, rng=torch.Generator().manual_seed(0)) == expected


def test_a_crop_is_its_generators_alone() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))
    before = torch.random.get_rng_state()
    first, again, other = (
        np.asarray(random_crop(image, 24, scale=(0.25, 1.0), ratio=RATIO, rng=torch.Generator().manual_seed(seed)))
        for seed in (1, 1, 2)
    )
    assert (first == again).all()
    assert (first != other).any()
    assert first.shape == (24, 24, 3)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("size", [(64, 64), (128, 128), (131, 257), (33, 500), (64, 63), (255, 129), (20, 90)])
def test_the_center_crop_is_bit_exact_to_adms_definition(size: tuple[int, int]) -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    side, expected = 32, image
    while min(*expected.size) >= 2 * side:
        expected = expected.resize(tuple(x // 2 for x in expected.size), resample=Image.BOX)
    scale = side / min(*expected.size)
    expected = expected.resize(tuple(round(x * scale) for x in expected.size), resample=Image.BICUBIC)
    pixels = np.array(expected)
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    assert np.array_equal(np.array(center_crop(image, side)), pixels[top : top + side, left : left + side])


@pytest.mark.parametrize(("scale", "ratio"), [((0.0, 1.0), RATIO), ((0.5, 1.2), RATIO), ((0.5, 1.0), (2.0, 1.0))])
def test_invalid_bounds_are_refused(scale: tuple[float, float], ratio: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"Give the smallest and the largest"):
        random_box(100, 100, scale=scale, ratio=ratio, rng=torch.Generator())


def test_a_random_square_is_a_piece_of_the_shrunken_image_and_its_generators_alone() -> None:
    image = Image.fromarray(np.random.default_rng(2).integers(0, 256, (90, 70, 3), dtype=np.uint8))
    drawn = [
        np.asarray(random_square(image, 24, scale=(0.8, 1.0), rng=torch.Generator().manual_seed(seed)))
        for seed in (*range(30), 0)
    ]
    assert (drawn[0] == drawn[-1]).all()
    assert len({picture.tobytes() for picture in drawn}) > 20
    for picture in drawn[:5]:
        assert any(contains(np.asarray(shrink(image, side)), picture) for side in range(24, 31))  # ceil(24 / 0.8)


def contains(whole: np.ndarray, piece: np.ndarray) -> bool:
    windows = np.lib.stride_tricks.sliding_window_view(whole, piece.shape)[:, :, 0]
    return bool((windows == piece).all(axis=(2, 3, 4)).any())


def test_a_whole_square_is_the_center_crop_of_a_square_image() -> None:
    image = Image.fromarray(np.random.default_rng(3).integers(0, 256, (50, 50, 3), dtype=np.uint8))
    drawn = random_square(image, 20, scale=(1.0, 1.0), rng=torch.Generator().manual_seed(0))
    assert np.array_equal(np.asarray(drawn), np.asarray(center_crop(image, 20)))
    with pytest.raises(ValueError, match="Give the smallest and the largest share of the side"):
        random_square(image, 20, scale=(0.5, 1.5), rng=torch.Generator())
