"""The training of a feature network: one seed, one result, and features of unit size."""

import pytest
import torch
from torch.utils.data import TensorDataset

from ldbench.layers.features import FeatureNetwork
from ldbench.training import classifier_module
from ldbench.training.optimizer import AdamW

RATES = {"lr": 1e-2, "min_lr": 0.0, "schedule": "cosine", "warmup_steps": 2, "warmup_lr": None}
OPTIMIZER = AdamW(**RATES, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.01, clip_norm=1.0)


@pytest.fixture
def images() -> TensorDataset:
    """Noise, brighter on the left or on the right: two classes."""
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 2
    noise = 0.3 * torch.randn(60, 3, 16, 16, generator=rng)
    side = torch.where(torch.arange(16) < 8, 0.5, -0.5)
    return TensorDataset((noise + side * (2 * y - 1)[:, None, None, None]).clamp(-1, 1), y)


def trained(images: TensorDataset, *, seed: int = 0, max_steps: int = 12) -> FeatureNetwork:
    torch.manual_seed(seed)
    network = FeatureNetwork(image_size=16, num_classes=2, widths=(8, 8, 8), num_features=4)
    return classifier_module.train(
        network, images, optimizer=OPTIMIZER, max_steps=max_steps, batch_size=16, shift=1, seed=seed
    )


def test_it_learns_what_tells_the_classes_apart(images: TensorDataset) -> None:
    network = trained(images, max_steps=40)
    assert not network.training
    pixels, y = images.tensors
    assert (network(pixels).argmax(dim=1) == y).double().mean() > 0.95


def test_one_seed_gives_one_result_and_another_another(images: TensorDataset) -> None:
    first, again, other = trained(images), trained(images), trained(images, seed=1)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in first.state_dict().items())
    assert not torch.equal(first.project.weight, other.project.weight)


def test_features_and_maps_are_of_unit_rms_over_the_training_images(images: TensorDataset) -> None:
    network = trained(images)
    with torch.no_grad():
        for seen in (network.features(images.tensors[0]), network.map(images.tensors[0])):
            assert seen.double().square().mean().sqrt().item() == pytest.approx(1.0, rel=1e-5)


def test_an_image_is_moved_by_whole_pixels_and_repeats_its_border() -> None:
    ramp = torch.arange(8.0).expand(1, 3, 8, 8)
    moved = classifier_module.shifted(ramp.expand(50, 3, 8, 8), 2, rng=torch.Generator().manual_seed(0))
    possible = {tuple((torch.arange(8.0) + by).clamp(0, 7).tolist()) for by in range(-2, 3)}
    assert {tuple(row.tolist()) for row in moved[:, 0, 0]} == possible
    assert torch.equal(moved, moved[:, :1, :1].expand_as(moved)), "down, a ramp across does not change"


def test_no_shift_leaves_images_alone_and_draws_nothing() -> None:
    rng = torch.Generator().manual_seed(0)
    before = rng.get_state()
    images = torch.rand(2, 3, 8, 8)
    assert classifier_module.shifted(images, 0, rng=rng) is images
    assert torch.equal(rng.get_state(), before)
