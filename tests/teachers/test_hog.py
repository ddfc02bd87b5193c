"""HOG: what it says of ramps, what it ignores, and that it agrees with scikit-image where the two definitions meet."""

import numpy as np
import pytest
import torch
from einops import rearrange

from ldbench.config.components import instantiate
from ldbench.config.compose import Registry
from ldbench.core.interfaces import Teacher
from ldbench.teachers.hog import HOG, gaussian

SIZE = 64
STEPS = torch.linspace(-1, 1, SIZE)
ACROSS, DOWN = STEPS.expand(SIZE, SIZE), STEPS[:, None].expand(SIZE, SIZE)


@pytest.fixture
def hog() -> HOG:
    return instantiate(Registry().options("teacher")["hog"])


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1


def rgb(plane: torch.Tensor) -> torch.Tensor:
    return plane.expand(1, 3, *plane.shape)


def test_it_is_a_teacher_with_nothing_to_train_and_nothing_to_store(hog: HOG) -> None:
    teacher: Teacher = hog
    assert teacher.revision == 1
    assert not list(hog.parameters())
    assert not hog.state_dict()


@pytest.mark.parametrize(
    ("plane", "expected"),
    [
        (ACROSS, 4),
        (-ACROSS, 4),
        (DOWN, 0),
        (-DOWN, 0),
        ((ACROSS + DOWN) / 2, 2),
        (-(ACROSS + DOWN) / 2, 2),
        ((ACROSS - DOWN) / 2, 6),
    ],
    ids=("right", "left", "down", "up", "diagonal", "diagonal_backwards", "other_diagonal"),
)
@pytest.mark.parametrize("window", [16, None])
def test_a_ramp_is_in_one_bin_whichever_way_it_rises(plane: torch.Tensor, expected: int, window: int | None) -> None:
    cells = HOG(num_bins=9, cell_size=8, window=window).cells(rgb(plane))
    inner = cells[..., 1:-1, 1:-1]  # the mirrored edges of the image are flat in one direction
    assert torch.allclose(inner[:, :, expected], torch.ones(()))
    assert inner.sum() == pytest.approx(inner[:, :, expected].sum().item(), abs=1e-4)


@pytest.mark.parametrize("value", [-1.0, 0.3, 0.123456])
def test_a_flat_image_has_no_features_at_all(hog: HOG, value: float) -> None:
    assert not hog(torch.full((2, 3, SIZE, SIZE), value), (4, 4)).any()


def test_brightness_and_contrast_do_not_matter(hog: HOG) -> None:
    plane = (
        torch.randint(0, 64, (1, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(1)) / 64
    ).float()  # sums are exact
    assert torch.equal(hog(plane, (4, 4)), hog(plane - 0.5, (4, 4)))
    assert torch.allclose(hog(plane, (4, 4)), hog(0.25 * plane, (4, 4)), atol=1e-6)


def test_a_cell_is_of_length_one(hog: HOG, images: torch.Tensor) -> None:
    assert torch.allclose(hog.cells(images).norm(dim=2), torch.ones(()))


def test_an_image_alone_has_the_features_that_it_has_in_a_batch(hog: HOG, images: torch.Tensor) -> None:
    together = hog(images, (4, 4))
    assert all(
        torch.equal(hog(image[None], (4, 4))[0], features) for image, features in zip(images, together, strict=True)
    )


def test_features_are_ordered_by_color_bin_and_cell_and_positions_by_row(hog: HOG) -> None:
    image = torch.zeros(1, 3, SIZE, SIZE)
    image[0, 1] = ACROSS  # green rises to the right, and nothing else is there
    image[0, 1, :, : SIZE // 2] = 0
    image[0, 1, : SIZE // 2] = 0  # in the last quarter only
    features = rearrange(hog(image, (4, 4)), "1 (h w) (c k u v) -> h w c k u v", h=4, c=3, k=9, u=2)
    assert features[3, 3, 1, 4].min() > 0.9
    for index in ((0, 0), (0, 3), (3, 0)):
        assert not features[index].any()
    assert not features[:, :, [0, 2]].any()
    cells = hog.cells(image)
    assert torch.equal(features[3, 2, 1, :, 1, 0], cells[0, 1, :, 7, 4])


@pytest.mark.parametrize(
    ("size", "grid", "channels"),
    [(256, (16, 16), 108), (512, (32, 32), 108), (512, (16, 16), 432), (64, (8, 8), 27), (64, (8, 2), 108)],
)
def test_any_grid_that_divides_the_cells_is_served(hog: HOG, size: int, grid: tuple[int, int], channels: int) -> None:
    assert hog.channels(size, grid) == channels
    assert hog(torch.randn(1, 3, size, size), grid).shape == (1, grid[0] * grid[1], channels)


def test_an_image_need_not_be_square_nor_a_multiple_of_the_window(hog: HOG) -> None:
    images = torch.randn(2, 3, 40, 72)
    features = hog(images, (5, 9))
    assert features.shape == (2, 45, 27)
    padded = torch.nn.functional.pad(images, (0, 8, 0, 8), mode="reflect")
    # the window is tiled from the upper left and cut
    assert torch.equal(hog.cells(images)[..., :4, :8], hog.cells(padded)[..., :4, :8])


def test_the_window_weights_pixels_by_their_position() -> None:
    window = gaussian(16)
    assert window.sum() == pytest.approx(1.0)
    assert torch.equal(window, window.T)
    assert torch.allclose(window, window.flip(0))
    assert window[7, 7] / window[7, 15] == pytest.approx(np.exp((7.5**2 - 0.5**2) / (2 * 8**2)))
    hog, plain = HOG(num_bins=9, cell_size=8, window=16), HOG(num_bins=9, cell_size=8, window=None)
    images = torch.randn(1, 3, 32, 32)
    assert not torch.allclose(hog.cells(images), plain.cells(images))


def test_autocast_and_half_precision_images_change_nothing(hog: HOG, images: torch.Tensor) -> None:
    expected = hog(images, (4, 4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(hog(images, (4, 4)), expected)
    features = hog(images.bfloat16(), (4, 4))
    assert features.dtype == torch.float32
    assert torch.equal(features, hog(images.bfloat16().float(), (4, 4)))


def test_images_get_no_gradient(hog: HOG, images: torch.Tensor) -> None:
    assert not hog(images.requires_grad_(), (4, 4)).requires_grad


def test_unsupported_grids_are_refused(hog: HOG) -> None:
    with pytest.raises(ValueError, match=r"cells of 8 pixels do not divide an image of 100x100\. Choose a cell_size"):
        hog.channels(100, (5, 5))
    with pytest.raises(ValueError, match=r"A grid of 3x3 does not divide the 8x8 HOG cells of an image of 64x64"):
        hog(torch.zeros(1, 3, 64, 64), (3, 3))
    with pytest.raises(
        ValueError, match=r"A grid of 16x16 does not divide .* Choose a cell_size that divides 4x4 pixels"
    ):
        hog.channels(64, (16, 16))
    with pytest.raises(ValueError, match="A grid of 0x4"):
        hog.channels(64, (0, 4))
    with pytest.raises(ValueError, match="window of at least 1, got 0"):
        HOG(num_bins=9, cell_size=8, window=0)


@pytest.mark.parametrize("num_bins", [8, 9])
def test_it_is_scikit_images_hog_where_the_definitions_meet(num_bins: int) -> None:
    """On f(column) + g(row), Sobel's filters are four times the central differences that scikit-image takes; it counts
    angles from the other axis.
    """
    skimage = pytest.importorskip("skimage.feature", reason="scikit-image is not installed")
    rng = np.random.RandomState(0)
    planes = [100 * (rng.randn(SIZE)[None, :] + rng.randn(SIZE)[:, None]) for _ in range(3)]
    keywords = {
        "orientations": num_bins,
        "pixels_per_cell": (8, 8),
        "cells_per_block": (1, 1),
        "block_norm": "L2",
        "feature_vector": False,
    }
    theirs = np.stack([skimage.hog(plane.T, **keywords)[:, :, 0, 0].transpose(2, 1, 0) for plane in planes])
    ours = HOG(num_bins=num_bins, cell_size=8, window=None).cells(torch.from_numpy(np.stack(planes))[None].float())
    assert np.abs(ours[0].numpy() - theirs).max() < 1e-5
