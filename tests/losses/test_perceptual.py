"""Perceptual loss terms: LPIPS, frozen, on weights handed over, and the distance of a teacher's maps."""

from types import SimpleNamespace

import pytest
import torch

from ldbench.core.posterior import Posterior
from ldbench.core.tokenizer import Reconstruction
from ldbench.layers.features import FeatureNetwork
from ldbench.layers.lpips import CONVOLUTIONS, LPIPSNetwork
from ldbench.losses.perceptual import LPIPS, TeacherDistance
from ldbench.teachers.digits import NetworkTeacher
from ldbench.teachers.hog import HOG


@pytest.fixture(scope="module")
def weights():
    """A random LPIPS in taming's layout, made from our own network's shapes."""
    torch.manual_seed(0)
    network = LPIPSNetwork(dropout=0.0)
    state = {"scaling_layer.shift": network.shift, "scaling_layer.scale": network.scale}
    for number, (stage, head) in enumerate(zip(network.stages, network.heads, strict=True)):
        state[f"lin{number}.model.1.weight"] = head.weight.data.abs()
        layers = [layer for layer in stage if isinstance(layer, torch.nn.Conv2d)]
        for index, layer in zip(CONVOLUTIONS[number], layers, strict=True):
            state[f"net.slice{number + 1}.{index}.weight"] = layer.weight.data
            state[f"net.slice{number + 1}.{index}.bias"] = layer.bias.data
    return state


@pytest.fixture
def term(weights):
    return LPIPS(weight=0.5, start=100, warmup=0, dropout=0.5, weights=weights, heads=None)


@pytest.fixture
def images():
    return torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def recon_of(images) -> Reconstruction:
    return Reconstruction(images=images, z=torch.zeros(2, 1, 1), posterior=Posterior(torch.zeros(2, 1, 1)))


def test_the_term_is_the_mean_distance_and_is_not_yet_weighted(term, images):
    value = term.eval()(images[0], recon_of(images[1]), torch.zeros(2))
    assert value.shape == ()
    assert torch.allclose(value, term.network(images[0], images[1]).mean())
    assert value > 0
    assert term(images[0], recon_of(images[0]), torch.zeros(2)) == 0
    assert (term.weight, term.start) == (0.5, 100)


def test_dropout_is_there_in_training_and_can_be_switched_off(term, weights, images):
    term.train()
    assert term.network.dropout.p == 0.5
    assert term(images[0], recon_of(images[1]), None) != term(images[0], recon_of(images[1]), None)
    measured = LPIPS(weight=1.0, start=0, warmup=0, dropout=0.0, weights=weights, heads=None).train()
    assert measured(images[0], recon_of(images[1]), None) == measured(images[0], recon_of(images[1]), None)


def test_images_get_a_gradient_and_the_network_gets_none(term, images):
    recon = images[1].clone().requires_grad_()
    term(images[0], recon_of(recon), None).backward()
    assert recon.grad.abs().sum() > 0
    assert all(not p.requires_grad and p.grad is None for p in term.parameters())


def test_missing_weights_are_named(weights):
    lost = {key: value for key, value in weights.items() if key != "net.slice2.7.weight"}
    with pytest.raises(ValueError, match=r"lack 1 of 33 tensors, first net\.slice2\.7\.weight"):
        LPIPS(weight=1.0, start=0, warmup=0, dropout=0.0, weights=lost, heads=None)


def test_the_weights_handed_over_are_copied(weights, images):
    term = LPIPS(weight=1.0, start=0, warmup=0, dropout=0.0, weights=weights, heads=None)
    term.network.heads[0].weight.data.zero_()
    assert weights["lin0.model.1.weight"].abs().sum() > 0


@pytest.mark.slow
def test_torchvisions_network_and_torchmetrics_heads_give_torchmetrics_distance(images):
    from torchmetrics.functional.image.lpips import _LPIPS

    from ldbench.artifacts.weights import read_weights

    torch.manual_seed(3)
    theirs = _LPIPS(pretrained=True, net="vgg", pnet_rand=True).eval()  # their heads on a random VGG16: no download
    vgg16 = {
        f"features.{key.split('.', 1)[1]}": value
        for key, value in theirs.net.state_dict().items()
        if key.startswith("slice")
    }
    heads = read_weights("torchmetrics://lpips_vgg")
    term = LPIPS(weight=1.0, start=0, warmup=0, dropout=0.0, weights=vgg16, heads=heads)
    with torch.no_grad():
        expected = theirs(images[0], images[1]).flatten()
        assert torch.allclose(term.network(images[0], images[1]), expected, rtol=1e-3)


def test_a_missing_layer_is_named(weights):
    heads = {key: value for key, value in weights.items() if key.startswith("lin")}
    with pytest.raises(ValueError, match=r"lack 26 of 33 tensors, first net\.slice1\.0\.bias"):
        LPIPS(weight=1.0, start=0, warmup=0, dropout=0.0, weights={}, heads=heads)


def test_a_teachers_distance_is_the_error_of_its_maps_and_has_gradients_to_the_reconstruction_alone() -> None:
    torch.manual_seed(0)
    network = FeatureNetwork(image_size=32, num_classes=10, widths=[4, 4, 4], num_features=4)
    term = TeacherDistance(weight=1.0, start=0, warmup=0, teacher=NetworkTeacher(network=network))
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    decoded = torch.rand(2, 3, 32, 32, requires_grad=True)
    recon = SimpleNamespace(images=decoded)
    loss = term(images, recon, torch.zeros(2))
    expected = (network.map(images) - network.map(decoded)).square().mean()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert decoded.grad is not None
    assert images.grad is None
    assert not any(parameter.requires_grad for parameter in term.parameters())


def test_a_teacher_without_gradients_to_the_images_is_refused() -> None:
    with pytest.raises(ValueError, match="HOG has no maps with gradients"):
        TeacherDistance(weight=1.0, start=0, warmup=0, teacher=HOG(num_bins=9, cell_size=4, window=None))
