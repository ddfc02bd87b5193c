"""Time grids: their ends, their shift, and what is refused."""

import pytest
import torch

from ldbench.sampling.grid import last_of, time_grid, validate_grid, validate_state


def test_a_grid_goes_from_start_to_end_in_its_steps():
    assert torch.allclose(
        time_grid(0.2, 0.6, num_steps=4, shift=1.0), torch.tensor([0.2, 0.3, 0.4, 0.5, 0.6], dtype=torch.float64)
    )


def test_a_shift_below_one_stays_nearer_the_start_and_keeps_the_ends():
    grid = time_grid(0.1, 0.9, num_steps=10, shift=0.3)
    assert float(grid[0]) == pytest.approx(0.1)
    assert float(grid[-1]) == pytest.approx(0.9)
    assert (grid.diff() > 0).all()
    assert (grid.diff().diff() > 0).all()
    assert float(time_grid(0.0, 1.0, num_steps=2, shift=0.3)[1]) == pytest.approx(0.2308, abs=1e-4)


def test_the_last_state_is_reached_without_keeping_the_others():
    assert last_of(iter([torch.tensor(1), torch.tensor(2)])) == 2


def test_invalid_grids_and_states_are_refused():
    with pytest.raises(ValueError, match="at least one step"):
        validate_grid(0, 1.0)
    with pytest.raises(ValueError, match=r"shift must be above zero, got 0\.0\. 1 changes nothing"):
        validate_grid(10, 0.0)
    with pytest.raises(ValueError, match="Choose float32 or float64"):
        validate_state("float16", 1e-3)
    with pytest.raises(ValueError, match="margin must lie in"):
        validate_state("float32", 0.0)
