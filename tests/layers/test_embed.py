"""Patches: their order, their inverse and their embedding."""

import pytest
import torch

from ldbench.layers.embed import PatchEmbed, patchify, unpatchify


@pytest.fixture
def images():
    return torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))


def test_a_patch_vector_runs_over_rows_then_columns_then_channels(images):
    patches = patchify(images, (2, 3))  # 4x4 px each
    assert patches.shape == (2, 6, 48)
    for row in range(2):
        for column in range(3):
            for i in range(4):
                for j in range(4):
                    vector = patches[:, 3 * row + column, (4 * i + j) * 3 : (4 * i + j) * 3 + 3]
                    assert torch.equal(vector, images[:, :, 4 * row + i, 4 * column + j])


def test_unpatchify_undoes_patchify(images):
    assert torch.equal(unpatchify(patchify(images, (2, 3)), (2, 3), 4), images)
    assert torch.equal(unpatchify(patchify(images, (8, 12)), (8, 12), 1), images)


def test_patches_may_be_higher_than_wide(images):
    patches = patchify(images, (2, 6))  # 4x2 px each
    assert torch.equal(patches[:, 0, :6], torch.cat([images[:, :, 0, 0], images[:, :, 0, 1]], dim=1))


@pytest.mark.parametrize("grid", [(3, 3), (2, 5)])
def test_a_grid_that_does_not_divide_the_image_is_refused(images, grid):
    with pytest.raises(ValueError, match=f"grid of {grid[0]}x{grid[1]} does not divide an image of 8x12"):
        patchify(images, grid)


def test_the_embedding_is_one_linear_map_of_every_patch(images):
    torch.manual_seed(0)
    embed = PatchEmbed(patch_size=4, width=5)
    weight = embed.proj.weight.permute(0, 2, 3, 1).reshape(5, 48)  # to (row, column, channel), as patchify orders them
    assert torch.allclose(embed(images), patchify(images, (2, 3)) @ weight.T + embed.proj.bias, atol=1e-5)
