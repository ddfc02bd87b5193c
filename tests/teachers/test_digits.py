"""NetworkTeacher: the maps of a frozen network at the positions of any grid."""

import pytest
import torch

from ldbench.layers.features import FeatureNetwork
from ldbench.teachers.digits import NetworkTeacher


@pytest.fixture
def teacher() -> NetworkTeacher:
    torch.manual_seed(0)
    return NetworkTeacher(network=FeatureNetwork(image_size=32, num_classes=3, widths=(8, 8, 6), num_features=5))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("grid", [(8, 8), (4, 4), (3, 5), (16, 16)])
@pytest.mark.parametrize("size", [24, 32])
def test_it_returns_features_at_every_position_of_a_grid(
    teacher: NetworkTeacher, grid: tuple[int, int], size: int
) -> None:
    found = teacher(torch.zeros(2, 3, size, size), grid)
    assert found.shape == (2, grid[0] * grid[1], teacher.channels(size, grid))


def test_on_the_networks_own_grid_features_are_its_map_row_by_row(
    teacher: NetworkTeacher, images: torch.Tensor
) -> None:
    features = teacher(images, (8, 8))
    map_ = teacher.network.map(images)
    assert torch.equal(features[:, 8 * 2 + 5], map_[:, :, 2, 5])


def test_a_coarser_grid_averages_around_its_positions(teacher: NetworkTeacher, images: torch.Tensor) -> None:
    whole = teacher(images, (1, 1))[:, 0]
    assert torch.corrcoef(torch.stack([whole[0], teacher.network.map(images)[0].mean(dim=(1, 2))]))[0, 1] > 0.99


def test_it_is_frozen_and_stays_in_eval_mode(teacher: NetworkTeacher, images: torch.Tensor) -> None:
    before = teacher(images, (4, 4))
    teacher.train()
    assert not teacher.network.training
    after = teacher(images.requires_grad_(), (4, 4))
    assert torch.equal(after, before)
    assert not after.requires_grad
    assert not [p for p in teacher.parameters() if p.requires_grad]


def test_its_features_are_float32_under_autocast(teacher: NetworkTeacher, images: torch.Tensor) -> None:
    plain = teacher(images, (4, 4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(teacher(images, (4, 4)), plain)
