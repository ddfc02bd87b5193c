"""DiscreteDiffusion: conversions between indices and times, and the Gaussians of its reverse steps."""

import pytest
import torch

from ldbench.core.discrete_diffusion import (
    DiscreteDiffusion,
    fractional_index,
    index_at,
    time_of_index,
    times_of_indices,
)


def test_the_index_counts_from_the_data_and_time_from_the_noise():
    assert time_of_index(999, 1000) == 0.0
    assert time_of_index(0, 1000) == pytest.approx(0.999)
    index = torch.arange(1000)
    t = times_of_indices(index, 1000)
    assert torch.equal(index_at(t, 1000), index)
    assert torch.equal(fractional_index(t, 1000), index.double())
    assert torch.equal(index_at(t.float(), 1000), index), "single precision finds its way back"


def test_every_time_belongs_to_one_index_and_all_indices_have_the_same_share():
    t = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    assert index_at(t, 100).bincount().tolist() == [100] * 100
    assert index_at(torch.tensor([0.0, 1.0]), 100).tolist() == [99, 0]


def test_a_step_back_is_the_posterior_of_the_chain():
    """Bayes by hand: x_1 = sqrt(a) x_0 + sqrt(1-a) n, x_2 = sqrt(b) x_1 + sqrt(1-b) n."""
    a, b = 0.9, 0.8
    diffusion = DiscreteDiffusion(torch.tensor([a, a * b], dtype=torch.float64))
    precision = b / (1 - b) + 1 / (1 - a)
    assert float(diffusion.posterior_variance[1]) == pytest.approx(1 / precision)
    x, data = torch.full((1, 1, 1), 0.3, dtype=torch.float64), torch.full((1, 1, 1), -0.6, dtype=torch.float64)
    expected = (b**0.5 * 0.3 / (1 - b) + a**0.5 * -0.6 / (1 - a)) / precision
    assert float(diffusion.posterior_mean(x, data, torch.tensor([1]))) == pytest.approx(expected)
    assert float(diffusion.posterior_mean(x, data, torch.tensor([0]))) == pytest.approx(-0.6), (
        "the first step is the data"
    )


def test_the_variance_of_a_step_lies_between_the_posteriors_and_beta():
    diffusion = DiscreteDiffusion(torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64))
    index, shares = torch.tensor([1, 2]), torch.zeros(2, 1, 1, dtype=torch.float64)
    torch.testing.assert_close(diffusion.logvar(index, shares).flatten().exp(), diffusion.posterior_variance[1:])
    torch.testing.assert_close(diffusion.logvar(index, shares + 1).flatten().exp(), diffusion.betas[1:])
    assert len(diffusion) == 3
    assert torch.isfinite(diffusion.posterior_logvar).all()


def test_a_chain_whose_data_do_not_fade_is_refused():
    with pytest.raises(ValueError, match="must decrease at every diffusion step"):
        DiscreteDiffusion(torch.tensor([0.5, 0.5]))
