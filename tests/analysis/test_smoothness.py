"""Perturbation: latents move by standard deviations of their channel, and the statistics of a curve have their
closed forms.
"""

import pytest
import torch

from ldbench.analysis.smoothness import curve, perturb


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_noise_comes_in_standard_deviations_of_each_channel() -> None:
    sigma = torch.tensor([0.0, 1.0, 10.0], dtype=torch.float64)
    mean, noise = normal(4, 5, 3), normal(4, 5, 3, seed=1)
    moved = perturb(mean, eps=0.2, noise=noise, sigma=sigma) - mean
    torch.testing.assert_close(moved, 0.2 * noise * sigma)
    assert torch.equal(perturb(mean, eps=0.0, noise=noise, sigma=sigma), mean)


def test_the_squared_error_of_a_linear_decoder_is_its_parabola() -> None:
    levels, decoder, sigma = (0.0, 0.1, 0.25, 0.5), normal(48, 6), torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    mean, noise = normal(5, 2, 3, seed=1), normal(5, 2, 3, seed=2)
    decoded = [perturb(mean, eps=eps, noise=noise, sigma=sigma).flatten(1) @ decoder.T for eps in levels]
    values = torch.stack([(x - decoded[0]).square().mean(dim=1) for x in decoded])
    unit = ((noise * sigma).flatten(1) @ decoder.T).square().mean(dim=1)
    torch.testing.assert_close(values, torch.tensor(levels, dtype=torch.float64).square()[:, None] * unit)
    found = curve(levels, values)
    trapezoids = 0.1 * 0.01 / 2 + 0.15 * (0.01 + 0.0625) / 2 + 0.25 * (0.0625 + 0.25) / 2
    torch.testing.assert_close(found.area, trapezoids * unit)
    mean_level = sum(levels) / 4
    slope = sum((eps - mean_level) * eps**2 for eps in levels) / sum((eps - mean_level) ** 2 for eps in levels)
    torch.testing.assert_close(found.slope, slope * unit)


def test_a_straight_curve_has_its_slope_and_its_triangle() -> None:
    found = curve([0.0, 0.1, 0.4], torch.tensor([[7.0, 1.0], [6.7, 1.0], [5.8, 1.0]]))
    torch.testing.assert_close(found.slope, torch.tensor([-3.0, 0.0], dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        found.area, torch.tensor([-3.0 * 0.4**2 / 2, 0.0], dtype=torch.float64), atol=1e-6, rtol=0
    )


def test_the_means_are_those_of_the_mean_curve() -> None:
    values = normal(4, 9)
    many, one = curve([0.0, 1.0, 2.0, 5.0], values), curve([0.0, 1.0, 2.0, 5.0], values.mean(dim=1, keepdim=True))
    torch.testing.assert_close(many.slope.mean(), one.slope[0])
    torch.testing.assert_close(many.area.mean(), one.area[0])


@pytest.mark.parametrize(("levels", "rows"), [([0.0], 1), ([0.0, 0.0], 2), ([0.1, 0.0], 2), ([0.0, 0.1], 3)])
def test_malformed_curves_are_refused(levels: list[float], rows: int) -> None:
    with pytest.raises(ValueError, match="at least two ascending levels"):
        curve(levels, torch.zeros(rows, 3))


def test_infinite_values_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        curve([0.0, 0.1], torch.tensor([[torch.inf], [20.0]]))
