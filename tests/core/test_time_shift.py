"""The shift of times: in either time convention, by the size of latents, and what is refused."""

import pytest
import torch

from ldbench.core.time_shift import dimension_shift, resolve_shift, shift_times, validate_shift


@pytest.mark.parametrize("shift", [0.1, 1.0, 3.0])
def test_a_shift_keeps_the_ends_and_the_order(shift):
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    shifted = shift_times(t, shift)
    assert (float(shifted[0]), float(shifted[-1])) == pytest.approx((0, 1))
    assert (shifted.diff() > 0).all()
    torch.testing.assert_close(shift_times(shifted, 1 / shift), t)


@pytest.mark.parametrize("num_numbers", [128, 4096, 256 * 768])
def test_the_shift_by_the_dimension_is_that_of_rae_in_its_own_time(num_numbers):
    theirs = torch.linspace(0, 1, 101, dtype=torch.float64)  # 0 data, 1 noise
    alpha = (num_numbers / 4096) ** 0.5
    expected = alpha * theirs / (1 + (alpha - 1) * theirs)
    torch.testing.assert_close(1 - shift_times(1 - theirs, dimension_shift(num_numbers)), expected)


def test_raes_latents_have_its_alpha():
    assert 1 / resolve_shift("dimension", 16 * 16 * 768) == pytest.approx(6.93, abs=5e-3)


def test_a_number_is_the_shift_itself():
    assert resolve_shift(0.3, 10**6) == 0.3


@pytest.mark.parametrize("shift", [0, -1.0, "sizes"])
def test_what_is_no_shift_is_refused(shift):
    with pytest.raises(ValueError, match=f"shift must be above zero, got {shift}"):
        validate_shift(shift)
