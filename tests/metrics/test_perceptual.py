"""Perceptual distances of uint8 images: torchmetrics' LPIPS, and the name LPIPS for the standard weights only."""

import pytest
import torch
from torchmetrics.functional.image.lpips import _LPIPS

from ldbench.artifacts.weights import read_weights
from ldbench.core.pixels import from_uint8
from ldbench.metrics.perceptual import LPIPS, STANDARD, VGGDistance


@pytest.fixture(scope="module")
def theirs() -> _LPIPS:
    """torchmetrics' heads on a random VGG16: no download."""
    torch.manual_seed(3)
    return _LPIPS(pretrained=True, net="vgg", pnet_rand=True).eval()


@pytest.fixture(scope="module")
def metric(theirs: _LPIPS) -> LPIPS:
    vgg16 = {
        f"features.{key.split('.', 1)[1]}": value
        for key, value in theirs.net.state_dict().items()
        if key.startswith("slice")
    }
    return LPIPS(weights=vgg16, heads=read_weights("torchmetrics://lpips_vgg"), sha256=STANDARD + "0" * 56)


@pytest.fixture
def images() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.randint(0, 256, (2, 3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return draw[0], draw[1]


def test_it_is_torchmetrics_lpips_of_the_pixels(
    metric: LPIPS, theirs: _LPIPS, images: tuple[torch.Tensor, torch.Tensor]
) -> None:
    found = metric(*images)
    assert found.dtype == torch.float64
    with torch.no_grad():
        expected = theirs(from_uint8(images[0]), from_uint8(images[1])).flatten().double()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)
    assert metric(images[0], images[0]).tolist() == [0, 0, 0]


def test_each_image_has_its_own_value_in_any_batch(metric: LPIPS, images: tuple[torch.Tensor, torch.Tensor]) -> None:
    torch.testing.assert_close(metric(images[0][:1], images[1][:1]), metric(*images)[:1], rtol=1e-4, atol=0)


def test_other_weights_are_not_called_lpips() -> None:
    with pytest.raises(
        ValueError,
        match=r"sha256 00000000, expected 397923af\): .* is not LPIPS\..* choose the metric features_vgg16",
    ):
        LPIPS(weights={}, heads={}, sha256="0" * 64)


def test_missing_weights_small_images_and_floats_are_refused(metric: LPIPS) -> None:
    with pytest.raises(ValueError, match="lack 33 of 33 tensors"):
        VGGDistance(weights={}, heads=None)
    with pytest.raises(ValueError, match="at least 16 px, got 8x8"):
        metric(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="uint8"):
        metric(torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32))
