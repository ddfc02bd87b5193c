"""Discriminators: sizes, counts, what is refused, and that a frozen network stays frozen and outside."""

import copy

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from ldbench.losses.discriminators import FrozenFeatures, PatchGAN, resize

WIDTH = 8


class FakeTeacher(nn.Module):
    """Patches of 4 px under a frozen convolution; each depth is another mixture of the channels."""

    def __init__(self, width: int = WIDTH):
        super().__init__()
        self.embed = nn.Conv2d(3, width, kernel_size=4, stride=4)
        self.mixtures = nn.ModuleList(nn.Conv1d(width, width, kernel_size=1) for _ in range(12))
        self.sizes = []

    def readouts(self, images, depths):
        self.sizes.append(tuple(images.shape[2:]))
        embedded = rearrange(self.embed(images), "b d h w -> b d (h w)")
        return [embedded, *(torch.tanh(self.mixtures[depth](embedded)) for depth in depths)]


def frozen_features(*, teacher=None, width=WIDTH, depths=(2, 5), kernel_size=3, input_size=16) -> FrozenFeatures:
    return FrozenFeatures(
        teacher=teacher or FakeTeacher(), width=width, depths=depths, kernel_size=kernel_size, input_size=input_size
    )


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


@pytest.fixture
def images():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_three_layers_of_patchgan_are_the_published_ones():
    network = PatchGAN(num_layers=3, width=64)
    assert count(network) == 2_765_633
    assert network.eval()(torch.zeros(1, 3, 256, 256)).shape == (1, 1, 30, 30)
    torch.manual_seed(0)
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert [layer.bias is not None for layer in convolutions] == [True, False, False, False, True]
    assert all(abs(layer.weight.std().item() / 0.02 - 1) < 0.1 for layer in convolutions)
    assert all(
        abs(layer.weight.mean().item() - 1) < 0.01 and abs(layer.weight.std().item() / 0.02 - 1) < 0.3
        for layer in norms
    )


@pytest.mark.parametrize(("num_layers", "side"), [(1, 6), (2, 12), (3, 24)])
def test_patchgan_takes_images_down_to_three_pixels_after_the_halvings_and_no_smaller(num_layers, side):
    network = PatchGAN(num_layers=num_layers, width=4)
    assert network(torch.zeros(2, 3, side, side)).shape == (2, 1, 1, 1)
    with pytest.raises(
        ValueError, match=f"of {num_layers} layers needs images of at least {side} px, got {side}x{side - 1}"
    ):
        network(torch.zeros(2, 3, side, side - 1))


def test_images_that_are_too_small_are_refused_with_the_number_of_layers_that_fit():
    with pytest.raises(ValueError, match=r"got 16x16\. Set the discriminator's num_layers=2\."):
        PatchGAN(num_layers=3, width=4)(torch.zeros(2, 3, 16, 16))
    assert PatchGAN(num_layers=2, width=4)(torch.zeros(2, 3, 16, 16)).shape[1] == 1
    with pytest.raises(ValueError, match="one layer needs 6 px"):
        PatchGAN(num_layers=3, width=4)(torch.zeros(2, 3, 5, 5))
    with pytest.raises(ValueError, match="num_layers of at least 1, got 0"):
        PatchGAN(num_layers=0, width=4)


def test_patchgan_judges_small_images_too(images):
    assert PatchGAN(num_layers=3, width=8)(images).shape == (3, 1, 2, 2)
    assert PatchGAN(num_layers=1, width=8)(images[:, :, :8, :8]).shape == (3, 1, 2, 2)


def test_heads_of_five_readouts_have_the_published_count():
    network = frozen_features(width=384, depths=(2, 5, 8, 11), kernel_size=9, input_size=224)
    width = 384
    each = (width * width + width) + (9 * width * width + width) + 2 * 2 * width + (width + 1)
    assert count(network) == 5 * each == 7_386_245  # 7.39 million


def test_there_is_a_logit_for_each_patch_of_the_embedding_and_of_each_depth(images):
    network = frozen_features(input_size=32)
    assert network(images).shape == (3, 3 * 64)
    assert network.held[0].sizes == [(32, 32)]


def test_a_frozen_teacher_gets_no_gradient_and_images_get_one(images):
    network = frozen_features()
    images.requires_grad_()
    network(images).square().sum().backward()
    assert images.grad.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in network.held[0].parameters())
    assert all(p.grad is not None for p in network.parameters())


def test_a_frozen_teacher_is_in_no_checkpoint_and_follows_no_mode(images):
    network = frozen_features().train()
    assert all(key.startswith("heads.") for key in network.state_dict())
    assert not network.held[0].training
    copied = copy.deepcopy(network)
    assert torch.equal(copied.eval()(images), network.eval()(images))


def test_a_teacher_follows_the_images_to_their_device():
    network = frozen_features().to("meta")
    assert next(network.held[0].parameters()).device.type == "cpu"
    network.teacher(torch.device("meta"))
    assert next(network.held[0].parameters()).device.type == "meta"


def test_large_images_are_cropped_half_of_the_time_in_training_and_otherwise_shrunk(images):
    torch.manual_seed(0)
    network = frozen_features()
    crops = images.unfold(2, 16, 1).unfold(3, 16, 1)  # every position of a 16 px window
    crops = rearrange(crops, "b c y x h w -> (y x) b c h w")
    shrunk = F.interpolate(images, size=(16, 16), mode="area")
    fitted = [network.fit(images) for _ in range(100)]
    cropped = [any(torch.equal(given, crop) for crop in crops) for given in fitted]
    assert 30 <= sum(cropped) <= 70
    assert len({given.sum().item() for given, is_crop in zip(fitted, cropped, strict=True) if is_crop}) > 10
    assert all(
        torch.allclose(given, shrunk, atol=1e-6) for given, is_crop in zip(fitted, cropped, strict=True) if not is_crop
    )
    network.eval()
    assert torch.allclose(
        torch.stack([network.fit(images) for _ in range(20)]), shrunk.expand(20, -1, -1, -1, -1), atol=1e-6
    )


def test_small_images_are_enlarged_and_those_of_the_right_size_left_alone(images):
    assert torch.allclose(
        frozen_features(input_size=48).fit(images), F.interpolate(images, size=(48, 48), mode="bicubic"), atol=1e-5
    )
    assert frozen_features(input_size=32).fit(images) is images


@pytest.mark.parametrize("mode", ["area", "bicubic"])
def test_resizing_by_matrices_is_torchs_also_for_sides_that_do_not_divide_and_differ(mode):
    images = torch.randn(2, 3, 37, 29)
    for size in (16, 41):
        assert torch.allclose(
            resize(images, size, mode), F.interpolate(images, size=(size, size), mode=mode), atol=1e-5
        )
    halved = images.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.allclose(
            resize(halved, 16, mode), F.interpolate(halved.float(), size=(16, 16), mode=mode), atol=1e-5
        )


def test_a_head_sees_the_patches_on_a_circle(images):
    network = frozen_features(input_size=32).eval()
    features = torch.randn(2, WIDTH, 10)
    for head in network.heads:
        assert torch.allclose(head(features.roll(3, dims=2)), head(features).roll(3, dims=2), atol=1e-6)


def test_spectral_normalization_holds_every_convolution_at_one(images):
    network = frozen_features(kernel_size=5)
    for _ in range(100):
        network(images)
    for layer in network.modules():
        if isinstance(layer, nn.Conv1d):
            assert torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2).item() == pytest.approx(1, abs=1e-3)


def test_a_teacher_of_another_width_is_refused_with_the_right_one(images):
    with pytest.raises(ValueError, match=r"has 12 features, but its heads take 8\. Set discriminator\.width=12\."):
        frozen_features(teacher=FakeTeacher(width=12))(images)


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match=r"must be odd.*got 8\. Choose 9\."):
        frozen_features(kernel_size=8)


def test_a_generators_pass_through_frozen_heads_still_reaches_the_images(images):
    for network in (frozen_features(), PatchGAN(num_layers=2, width=4)):
        network.requires_grad_(False)
        given = images.clone().requires_grad_()
        network(given).mean().backward()
        assert given.grad.abs().sum() > 0
        assert all(p.grad is None for p in network.parameters())


def test_half_precision_regions_give_about_the_same_logits(images):
    for network in (frozen_features(input_size=32), PatchGAN(num_layers=2, width=8)):
        expected = network.eval()(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.allclose(network(images).float(), expected, atol=0.1)
            network.train()(images).float().mean().backward()
