"""Distributions of times: their quantiles, their shifts, when they end, and what is refused."""

import pytest
import torch

from ldbench.core.interfaces import TimeDistribution
from ldbench.core.interpolants import GVP, VP, Discrete, Linear
from ldbench.objectives.times import Counted, LogitNormal, NormalLogSNR, Uniform


def logit_normal(**changes) -> LogitNormal:
    return LogitNormal(**{"mean": 0.0, "std": 1.0, "shift": 1.0, "uniform_after": None, **changes})


def draw(times: TimeDistribution, count: int, *, step: int = 0, rng: torch.Generator | None = None) -> torch.Tensor:
    """Times of latents of 64 numbers."""
    return times.sample(count, step=step, num_numbers=64, rng=rng)


DISTRIBUTIONS = {
    "uniform": Uniform(),
    "logit_normal": logit_normal(),
    "normal_log_snr": NormalLogSNR(interpolant=GVP(), mean=0.0, std=1.0),
    "counted": Counted(interpolant=Discrete(schedule="linear", num_times=1000)),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_distribution_draws_float64_times_on_the_cpu_from_the_seed(name):
    draws = [draw(DISTRIBUTIONS[name], 64, rng=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert (draws[0].dtype, draws[0].shape, draws[0].device.type) == (torch.float64, (64,), "cpu")
    assert ((draws[0] >= 0) & (draws[0] <= 1)).all()
    torch.manual_seed(5)
    first = draw(DISTRIBUTIONS[name], 8)
    torch.manual_seed(5)
    assert torch.equal(draw(DISTRIBUTIONS[name], 8), first), "without a generator, torch's global RNG is used"


def test_a_logit_normal_has_the_density_of_its_formula():
    t = draw(logit_normal(mean=-0.5, std=0.8), 100_000, rng=torch.Generator().manual_seed(0))
    assert float(t.median()) == pytest.approx(float(torch.sigmoid(torch.tensor(-0.5))), abs=5e-3)
    normal = torch.distributions.Normal(-0.5, 0.8)
    assert float((t < 0.3).double().mean()) == pytest.approx(float(normal.cdf(torch.tensor(0.3).logit())), abs=5e-3)


def test_a_shift_below_one_moves_towards_the_noise():
    normals = torch.tensor([-1.0, 0.0, 1.0])
    plain, shifted = (logit_normal(shift=shift).times(normals, num_numbers=64) for shift in (1.0, 0.3))
    assert (shifted < plain).all()
    assert float(shifted[1]) == pytest.approx(0.3 * 0.5 / (1 - 0.7 * 0.5))


def test_a_shift_by_the_dimension_is_that_of_latents_of_this_size():
    normals = torch.tensor([-1.0, 0.0, 1.0])
    for num_numbers, shift in ((4096, 1.0), (16384, 0.5), (1024, 2.0)):
        found = logit_normal(shift="dimension").times(normals, num_numbers=num_numbers)
        torch.testing.assert_close(found, logit_normal(shift=shift).times(normals, num_numbers=7))


def test_from_a_step_on_times_are_uniform():
    times = logit_normal(mean=-3.0, uniform_after=100)
    rng = torch.Generator().manual_seed(0)
    assert float(draw(times, 10_000, step=99, rng=rng).mean()) < 0.1
    assert float(draw(times, 10_000, step=100, rng=rng).mean()) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("interpolant", [Linear(), GVP(), VP(beta_min=0.1, beta_max=20.0)])
def test_the_log_ratio_of_data_to_noise_is_normal_on_any_interpolant(interpolant):
    normals = torch.tensor([-2.0, 0.0, 0.5], dtype=torch.float64)
    t = NormalLogSNR(interpolant=interpolant, mean=0.1, std=0.7).times(normals)
    torch.testing.assert_close(interpolant.at(t).log_snr, 0.1 + 0.7 * normals)


def test_on_linear_that_is_the_logit_normal():
    normals = torch.randn(9, dtype=torch.float64)
    times = NormalLogSNR(interpolant=Linear(), mean=0.2, std=0.9).times(normals)
    torch.testing.assert_close(times, logit_normal(mean=0.2, std=0.9).times(normals, num_numbers=64))


def test_counted_times_are_those_of_the_interpolant():
    times = Counted(interpolant=Discrete(schedule="linear", num_times=21))
    assert len(draw(times, 2000).unique()) == 21
    with pytest.raises(ValueError, match="times=counted needs discrete time, but Linear is continuous"):
        Counted(interpolant=Linear())


def test_deviations_that_are_not_above_zero_are_refused():
    for make in (
        lambda: logit_normal(std=0.0),
        lambda: NormalLogSNR(interpolant=Linear(), mean=0.0, std=-1.0),
    ):
        with pytest.raises(ValueError, match="std > 0"):
            make()
    for shift in (0.0, -1.0, "size"):
        with pytest.raises(ValueError, match="shift must be above zero, got"):
            logit_normal(shift=shift)
