"""FeatureNetwork: its three views of an image, at its own size and at any other."""

import pytest
import torch

from ldbench.layers.features import FeatureNetwork


@pytest.fixture
def network() -> FeatureNetwork:
    torch.manual_seed(0)
    return FeatureNetwork(image_size=32, num_classes=5, widths=(8, 16, 12), num_features=6).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_it_gives_logits_features_and_maps(network: FeatureNetwork, images: torch.Tensor) -> None:
    assert network(images).shape == (3, 5)
    assert network.features(images).shape == (3, network.num_features) == (3, 6)
    assert network.map(images).shape == (3, network.map_channels, 8, 8) == (3, 12, 8, 8)


@pytest.mark.parametrize("size", [16, 48, 64])
def test_images_of_another_size_are_resized(network: FeatureNetwork, size: int) -> None:
    gray = torch.full((1, 3, 1, 1), 0.25)
    torch.testing.assert_close(
        network.features(gray.expand(1, 3, size, size)), network.features(gray.expand(1, 3, 32, 32))
    )
    assert network.map(gray.expand(1, 3, size, size)).shape[-2:] == (8, 8)


def test_the_rms_divides_features_and_maps_and_leaves_the_classes(
    network: FeatureNetwork, images: torch.Tensor
) -> None:
    before = network(images), network.features(images), network.map(images)
    network.feature_rms.fill_(2.0)
    network.map_rms.fill_(4.0)
    assert torch.equal(network(images), before[0])
    assert torch.equal(network.features(images), before[1] / 2)
    assert torch.equal(network.map(images), before[2] / 4)
    assert {"feature_rms", "map_rms"} <= network.state_dict().keys()


def test_images_of_a_batch_do_not_see_each_other(network: FeatureNetwork, images: torch.Tensor) -> None:
    torch.testing.assert_close(network.features(images)[:1], network.features(images[:1]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [8, 40, 0])
def test_it_refuses_sizes_that_its_pooling_does_not_divide(size: int) -> None:
    with pytest.raises(ValueError, match=f"a multiple of 16 px, got image_size {size}"):
        FeatureNetwork(image_size=size, num_classes=5, widths=(8, 8, 8), num_features=6)


def test_it_refuses_another_number_of_convolutions() -> None:
    with pytest.raises(ValueError, match=r"three convolutions, got widths \[8, 8\]"):
        FeatureNetwork(image_size=32, num_classes=5, widths=(8, 8), num_features=6)
