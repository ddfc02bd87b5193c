"""Extractors: features of uint8 images, frozen and in float32."""

import pytest
import torch

from ldbench.core.pixels import from_uint8
from ldbench.layers.features import FeatureNetwork
from ldbench.metrics.extractors import NetworkFeatures


@pytest.fixture
def extractor() -> NetworkFeatures:
    torch.manual_seed(0)
    return NetworkFeatures(network=FeatureNetwork(image_size=16, num_classes=3, widths=(8, 8, 8), num_features=5))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_its_features_are_those_of_the_network_in_eval_mode(extractor: NetworkFeatures, images: torch.Tensor) -> None:
    found = extractor.features(images)
    assert found.shape == (4, 5)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    assert torch.equal(found, extractor.network.eval().features(from_uint8(images)))


def test_it_has_no_trainable_parameters(extractor: NetworkFeatures) -> None:
    assert not [p for p in extractor.parameters() if p.requires_grad]
    assert not extractor.network.training


def test_images_of_another_size_are_accepted(extractor: NetworkFeatures) -> None:
    assert extractor.features(torch.zeros(2, 3, 40, 40, dtype=torch.uint8)).shape == (2, 5)


def test_pixels_that_are_not_uint8_are_refused(extractor: NetworkFeatures) -> None:
    with pytest.raises(ValueError, match=r"uint8 images, got torch\.float32"):
        extractor.features(torch.zeros(1, 3, 16, 16))
