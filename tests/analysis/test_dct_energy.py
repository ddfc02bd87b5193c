"""Energy of the cosine transform: Parseval, single waves, noise, and the frequencies that count as high."""

import math

import pytest
import torch

from ldbench.analysis.dct_energy import dct_energy, dct_matrix, share_beyond


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("size", [1, 2, 5, 16])
def test_the_transform_is_orthonormal(size: int) -> None:
    matrix = dct_matrix(size)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(size, dtype=torch.float64))


def test_the_energy_is_that_of_the_map() -> None:
    maps = normal(3, 2, 4, 6)
    torch.testing.assert_close(dct_energy(maps).sum(dim=(1, 2)), maps.square().sum(dim=(1, 2, 3)))


def test_a_wave_has_all_its_energy_at_its_frequencies() -> None:
    rows, columns = (torch.arange(size, dtype=torch.float64) + 0.5 for size in (8, 6))
    wave = torch.outer((math.pi * 3 / 8 * rows).cos(), (math.pi * 2 / 6 * columns).cos())
    energy = dct_energy(wave[None, None])
    assert energy[0, 3, 2].item() == pytest.approx(wave.square().sum().item())
    assert energy.sum().item() == pytest.approx(energy[0, 3, 2].item())
    assert share_beyond(energy, 4.9 / 12).item() == pytest.approx(1)  # 3 + 2 of 8 + 6 - 2
    assert share_beyond(energy, 5 / 12).item() == pytest.approx(0)


def test_a_constant_map_has_no_high_energy_and_noise_that_of_its_coefficients() -> None:
    constant = dct_energy(torch.tensor([2.0, 0.0])[:, None, None, None].expand(2, 3, 4, 4))
    assert share_beyond(constant, 0.0).tolist() == pytest.approx([0, 0])
    energy = dct_energy(normal(2000, 2, 4, 4))
    assert share_beyond(energy, 0.5).mean().item() == pytest.approx(6 / 16, rel=0.02)  # u + v above 3 of 6
