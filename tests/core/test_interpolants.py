"""The interpolants: integration intervals, DDPM's discrete times, and refused settings."""

import pytest
import torch

from ldbench.core.discrete_diffusion import times_of_indices
from ldbench.core.interpolants import GVP, VP, Discrete, Linear, cosine_betas, linear_betas


def test_velocities_on_straight_lines_and_circles_can_be_integrated_from_end_to_end():
    for interpolant in (Linear(), GVP()):
        assert interpolant.interval("velocity", 1e-3) == (0.0, 1.0)
        assert interpolant.interval("noise", 1e-3) == (1e-3, 1 - 1e-3)
    assert GVP().interval("angular", 1e-3) == (0.0, 1.0)
    assert VP(beta_min=0.1, beta_max=20.0).interval("velocity", 1e-3) == (0.0, 1 - 1e-3)
    assert Discrete(schedule="linear", num_times=1000).interval("noise", 0.1) == (0.0, 0.999)


def test_the_ends_of_the_linear_betas_are_ddpms_and_scale_with_the_number():
    betas = linear_betas(1000)
    assert (float(betas[0]), float(betas[-1])) == (1e-4, 0.02)
    assert float(linear_betas(100)[0]) == pytest.approx(1e-3)


def test_the_cosine_betas_give_a_squared_cosine_and_end_below_one():
    betas = cosine_betas(1000)
    assert float(betas[-1]) == 0.999
    share = torch.cumprod(1 - betas, 0)
    expected = (
        torch.cos(torch.tensor((0.5 + 0.008) / 1.008 * torch.pi / 2)) ** 2
        / torch.cos(torch.tensor(0.008 / 1.008 * torch.pi / 2)) ** 2
    )
    assert float(share[499]) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_chain_in_the_houses_time_has_the_shares_of_its_betas(schedule):
    interpolant = Discrete(schedule=schedule, num_times=1000)
    c = interpolant.at(times_of_indices(torch.arange(1000), 1000))
    torch.testing.assert_close(c.alpha.square(), torch.cumprod(1 - interpolant.betas, 0), rtol=1e-10, atol=0)
    between = interpolant.at(torch.tensor([1 - 5.5 / 1000], dtype=torch.float64)).alpha
    assert float(c.alpha[5]) < float(between) < float(c.alpha[4])


def test_the_continuous_path_is_the_limit_of_the_chain():
    times = times_of_indices(torch.arange(0, 1000, 100), 1000)
    chain, path = (
        each.at(times).alpha for each in (Discrete(schedule="linear", num_times=1000), VP(beta_min=0.1, beta_max=20.0))
    )
    torch.testing.assert_close(chain, path, rtol=0.02, atol=1e-3)


def test_what_is_no_schedule_is_refused():
    with pytest.raises(ValueError, match=r"Unknown schedule of betas 'sqrt'\. Choose linear or cosine"):
        Discrete(schedule="sqrt", num_times=1000)
    with pytest.raises(ValueError, match="num_times of at least 21, got 10"):
        Discrete(schedule="linear", num_times=10)
    with pytest.raises(ValueError, match="0 < beta_min <= beta_max"):
        VP(beta_min=0.0, beta_max=20.0)
