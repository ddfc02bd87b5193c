"""The LPIPS network: its definition written out, its invariances, and taming's key names."""

import pytest
import torch
from torchvision.models import vgg16

from ldbench.layers.lpips import SCALE, SHIFT, LPIPSNetwork, from_taming, unit

RELU_AFTER = (3, 8, 15, 22, 29)  # relu1_2, 2_2, 3_3, 4_3, 5_3 in torchvision's numbering


@pytest.fixture(scope="module")
def vgg():
    torch.manual_seed(0)
    return vgg16(weights=None).features.eval()


@pytest.fixture(scope="module")
def taming(vgg):
    """A random LPIPS in taming's layout."""
    rng = torch.Generator().manual_seed(1)
    state = {
        "scaling_layer.shift": torch.tensor(SHIFT).view(1, 3, 1, 1),
        "scaling_layer.scale": torch.tensor(SCALE).view(1, 3, 1, 1),
    }
    for key, value in vgg.state_dict().items():
        stage = 1 + sum(int(key.split(".")[0]) > end for end in RELU_AFTER)
        state[f"net.slice{stage}.{key}"] = value
    return state | {
        f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1, generator=rng) for i, c in enumerate((64, 128, 256, 512, 512))
    }


@pytest.fixture(scope="module")
def network(taming):
    network = LPIPSNetwork(dropout=0.5)
    network.load_state_dict(from_taming(taming))
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def pair():
    rng = torch.Generator().manual_seed(2)
    return tuple(torch.rand(2, 3, 32, 32, generator=rng) * 2 - 1 for _ in range(2))


@pytest.mark.slow
def test_the_distance_is_its_definition_on_torchvisions_vgg(network, vgg, taming, pair):
    def maps(images):
        x = (images - torch.tensor(SHIFT).view(1, 3, 1, 1)) / torch.tensor(SCALE).view(1, 3, 1, 1)
        found = []
        for number, layer in enumerate(vgg):
            x = layer(x)
            if number in RELU_AFTER:
                found.append(x.clone())
        return found

    expected = torch.zeros(2)
    with torch.no_grad():
        for stage, (x, y) in enumerate(zip(maps(pair[0]), maps(pair[1]), strict=True)):
            difference = (x / (x.norm(dim=1, keepdim=True) + 1e-10) - y / (y.norm(dim=1, keepdim=True) + 1e-10)) ** 2
            expected += (difference * taming[f"lin{stage}.model.1.weight"]).sum(dim=1).mean(dim=(1, 2))
        assert torch.allclose(network(*pair), expected, rtol=1e-4)
    assert (expected > 0.01).all()


def test_an_image_is_at_no_distance_from_itself_and_distances_are_symmetric(network, pair):
    a, b = pair
    assert torch.equal(network(a, a), torch.zeros(2))
    assert torch.allclose(network(a, b), network(b, a), rtol=1e-6)


def test_each_pair_is_measured_by_itself(network, pair):
    a, b = pair
    assert torch.allclose(network(a, b)[1:], network(a[1:], b[1:]), rtol=1e-5)


def test_dropout_touches_the_distance_only_in_train_mode(network, pair):
    quiet = network(*pair)
    assert torch.equal(network(*pair), quiet)
    try:
        network.train()
        assert not torch.equal(network(*pair), network(*pair))
        network.dropout.p = 0.0
        assert torch.equal(network(*pair), quiet)
    finally:
        network.dropout.p = 0.5
        network.eval()


def test_features_are_scaled_to_unit_length_and_zeros_stay_finite():
    x = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    x[0, :, 1, 1] = 0
    lengths = unit(x).norm(dim=1)
    assert lengths[0, 1, 1] == 0
    lengths[0, 1, 1] = 1
    assert torch.allclose(lengths, torch.ones(2, 3, 3))


def test_every_tensor_of_the_network_comes_from_the_file(network, taming):
    shuffled = {key: torch.full_like(value, number) for number, (key, value) in enumerate(taming.items())}
    values = [value.flatten()[0].item() for value in from_taming(shuffled).values()]
    assert sorted(values) == list(range(len(taming)))
    assert from_taming(taming).keys() == network.state_dict().keys()


def test_keys_may_stand_under_perceptual_loss(taming):
    checkpoint = {f"perceptual_loss.{key}": value for key, value in taming.items()} | {"pos_embed": torch.zeros(1)}
    assert all(
        torch.equal(a, b) for a, b in zip(from_taming(checkpoint).values(), from_taming(taming).values(), strict=True)
    )


@pytest.mark.parametrize("lost", ["lin3.model.1.weight", "net.slice4.19.bias", "scaling_layer.shift"])
def test_a_missing_tensor_is_named(taming, lost):
    with pytest.raises(ValueError, match=f"lack 1 of 33 tensors, first {lost}"):
        from_taming({key: value for key, value in taming.items() if key != lost})
    with pytest.raises(ValueError, match=f"first perceptual_loss.{lost}"):
        from_taming({f"perceptual_loss.{key}": value for key, value in taming.items() if key != lost})
