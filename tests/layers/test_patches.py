"""Patches of latents: their order, their inverse, and what does not divide."""

import pytest
import torch

from ldbench.core.latent import LatentSpec
from ldbench.layers.embed import patchify
from ldbench.layers.patches import LatentPatches

MAP, SEQUENCE = LatentSpec(24, 3, (4, 6)), LatentSpec(6, 3)


@pytest.mark.parametrize("patch_size", [1, 2])
def test_patches_of_a_map_are_those_of_an_image(patch_size):
    patches = LatentPatches(MAP, patch_size)
    z = torch.randn(2, 24, 3, generator=torch.Generator().manual_seed(0))
    assert patches.grid == (4 // patch_size, 6 // patch_size)
    assert patches.num_tokens == 24 // patch_size**2
    assert torch.equal(patches.split(z), patchify(MAP.to_map(z), patches.grid))
    assert torch.equal(patches.join(patches.split(z)), z)


def test_a_convolution_on_the_map_is_a_linear_map_of_its_patches():
    torch.manual_seed(0)
    conv, z = torch.nn.Conv2d(3, 5, 2, stride=2), torch.randn(2, 24, 3)
    weight = conv.weight.permute(0, 2, 3, 1).reshape(5, 12)  # to (row, column, channel)
    embedded = LatentPatches(MAP, 2).split(z) @ weight.T + conv.bias
    torch.testing.assert_close(embedded, conv(MAP.to_map(z)).flatten(2).transpose(1, 2))


def test_patches_of_a_sequence_are_neighbours():
    patches = LatentPatches(SEQUENCE, 3)
    z = torch.arange(18.0).view(1, 6, 3)
    assert patches.grid is None
    assert patches.num_tokens == 2
    assert torch.equal(patches.split(z)[0], torch.arange(18.0).view(2, 9))
    assert torch.equal(patches.join(patches.split(z)), z)


def test_twice_the_channels_return_as_the_two_halves_of_each_position():
    patches = LatentPatches(MAP, 2)
    first, second = torch.zeros(1, 24, 3), torch.ones(1, 24, 3)
    both = patches.join(patches.split(torch.cat([first, second], dim=-1)))
    assert torch.equal(both[..., :3], first)
    assert torch.equal(both[..., 3:], second)


def test_positions_are_of_a_map_or_of_a_sequence():
    assert LatentPatches(MAP, 2).positions(8).shape == (1, 6, 8)
    assert LatentPatches(SEQUENCE, 1).positions(8).shape == (1, 6, 8)
    assert LatentPatches(MAP, 2).rotations(8, 100.0)[0].shape == (1, 6, 4)
    assert LatentPatches(SEQUENCE, 1).rotations(8, 100.0)[1].shape == (1, 6, 4)


@pytest.mark.parametrize(
    ("latent", "patch_size", "message"),
    [
        (MAP, 4, r"patch_size 4 does not divide the latent grid 4x6. Choose one of \[1, 2\]"),
        (SEQUENCE, 4, r"patch_size 4 does not divide the 6 tokens of the latent. Choose one of \[1, 2, 3, 6\]"),
        (MAP, 0, "patch_size 0 does not divide"),
    ],
)
def test_what_does_not_divide_is_refused_with_what_does(latent, patch_size, message):
    with pytest.raises(ValueError, match=message):
        LatentPatches(latent, patch_size)
