"""DPM-Solver++(2M): it maps noise to a known Gaussian, with second order, in one call per step."""

import pytest
import torch
from tests.examples import checkerboard

from ldbench.core.interpolants import GVP, VP, Discrete, Linear
from ldbench.sampling.dpm_solver import DPMSolver

INTERPOLANTS = {
    "linear": Linear(),
    "gvp": GVP(),
    "vp": VP(beta_min=0.1, beta_max=20.0),
    "discrete": Discrete(schedule="linear", num_times=1000),
}
FIELDS = checkerboard(INTERPOLANTS, ("velocity", "noise", "data"))
Y = torch.zeros(8, dtype=torch.long)


def noise():
    return torch.randn(8, 3, 2, generator=torch.Generator().manual_seed(0))


def solver(**changes) -> DPMSolver:
    return DPMSolver(
        **{"num_steps": 100, "spacing": "time", "shift": 1.0, "margin": 1e-3, "dtype": "float64", **changes}
    )


@pytest.mark.parametrize("spacing", ["time", "log_snr"])
@pytest.mark.parametrize(("name", "kind"), FIELDS)
def test_it_carries_noise_to_a_known_gaussian_in_one_call_a_step(gaussian, spacing, name, kind):
    field = gaussian.field(INTERPOLANTS[name], kind)
    samples = solver(spacing=spacing)(field, noise(), Y)
    torch.testing.assert_close(samples, gaussian.flow(INTERPOLANTS[name], noise()), rtol=0, atol=0.02)
    assert (field.calls, field.items) == (100, 800)


@pytest.mark.parametrize("name", ["linear", "gvp"])
def test_it_converges_with_second_order_in_even_steps_of_log_snr(gaussian, slope, name):
    nums_steps, errors = (40, 80, 160), []
    for num_steps in nums_steps:
        samples = solver(spacing="log_snr", num_steps=num_steps)(
            gaussian.field(INTERPOLANTS[name], "velocity"), noise(), Y
        )
        errors.append(float((samples - gaussian.flow(INTERPOLANTS[name], noise())).abs().max()))
    assert slope(nums_steps, errors) == pytest.approx(2, abs=0.2)


def test_one_step_reaches_data_that_are_known(gaussian):
    """Where the data are known, one step is exact."""
    known = type(gaussian)(mean=0.7, std=1e-9)
    samples = solver(num_steps=1)(known.field(Linear(), "data"), noise(), Y)
    torch.testing.assert_close(samples, torch.full_like(samples, 0.7))


def test_invalid_settings_are_refused():
    with pytest.raises(ValueError, match="Choose time or log_snr"):
        solver(spacing="karras")
    with pytest.raises(ValueError, match="at least 3 in total"):
        solver(spacing="log_snr", num_steps=2)
    for interpolant in INTERPOLANTS.values():
        solver().check(interpolant)
