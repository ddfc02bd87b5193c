"""LatentSpec: maps are row-major sequences, and a latent without a grid has no map."""

import json

import pytest
import torch

from ldbench.core.latent import LatentSpec


def test_token_number_row_times_width_plus_column_lands_at_row_and_column():
    spec = LatentSpec(num_tokens=6, channels=2, grid=(2, 3))
    z = torch.arange(12.0).view(1, 6, 2)
    as_map = spec.to_map(z)
    assert as_map.shape == (1, 2, 2, 3)
    for row in range(2):
        for column in range(3):
            assert torch.equal(as_map[0, :, row, column], z[0, 3 * row + column])


def test_a_map_and_its_sequence_are_inverse_to_each_other():
    spec = LatentSpec(num_tokens=6, channels=4, grid=(2, 3))
    z = torch.randn(5, 6, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(spec.from_map(spec.to_map(z)), z)


def test_latents_without_a_grid_refuse_to_be_maps():
    spec = LatentSpec(num_tokens=32, channels=4)
    with pytest.raises(ValueError, match=r"32 tokens of 4 channels.*no grid"):
        spec.to_map(torch.zeros(1, 32, 4))
    with pytest.raises(ValueError, match="no grid"):
        spec.from_map(torch.zeros(1, 4, 8, 4))


def test_a_map_of_another_grid_is_refused_even_with_as_many_tokens():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        LatentSpec(num_tokens=6, channels=4, grid=(2, 3)).from_map(torch.zeros(1, 4, 3, 2))


@pytest.mark.parametrize(("num_tokens", "channels", "grid"), [(7, 1, (2, 3)), (0, 1, None), (4, 0, None)])
def test_impossible_shapes_are_refused(num_tokens, channels, grid):
    with pytest.raises(ValueError, match="token"):
        LatentSpec(num_tokens=num_tokens, channels=channels, grid=grid)


def test_a_spec_is_a_value():
    assert LatentSpec(num_tokens=4, channels=1, grid=(2, 2)) == LatentSpec(num_tokens=4, channels=1, grid=(2, 2))
    assert LatentSpec(num_tokens=4, channels=1, grid=(2, 2)) != LatentSpec(num_tokens=4, channels=1, grid=(1, 4))


@pytest.mark.parametrize("spec", [LatentSpec(6, 4, (2, 3)), LatentSpec(5, 2)])
def test_its_numbers_go_through_json_and_back(spec):
    assert LatentSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    with pytest.raises(
        ValueError, match="described by num_tokens, channels and grid, got channels, grid, num_tokens, size"
    ):
        LatentSpec.from_dict({**spec.to_dict(), "size": 3})
