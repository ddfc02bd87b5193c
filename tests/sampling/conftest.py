"""Fixtures of the samplers' tests: the exact mean and deviation of the samples along a linear field."""

from collections.abc import Callable

import pytest
import torch


@pytest.fixture
def outcome() -> Callable[..., tuple[float, float]]:
    """(mean, standard deviation) of samples, exactly: along a linear field they are sums of noises."""

    def measure(sampler, field, num_steps) -> tuple[float, float]:
        num_items = num_steps + 2  # no noise; only the initial noise; only one increment each
        noise = torch.zeros(num_items, 1, 1, dtype=torch.float64)
        noise[1] = 1
        increments = torch.zeros(num_steps, num_items, 1, 1, dtype=torch.float64)
        increments[torch.arange(num_steps), torch.arange(num_steps) + 2] = 1
        extra = {"increments": increments} if sampler.stochastic else {}
        *_, x = sampler.states(field, noise, torch.zeros(num_items, dtype=torch.long), **extra)
        x = x.flatten()
        return float(x[0]), float((x[1:] - x[0]).square().sum().sqrt())

    return measure


@pytest.fixture
def slope() -> Callable[..., float]:
    """The slope of errors over step sizes in logarithms: the order of convergence."""

    def fit(nums_steps, errors) -> float:
        x = -torch.tensor(nums_steps, dtype=torch.float64).log()
        y = torch.tensor(errors, dtype=torch.float64).log()
        x, y = x - x.mean(), y - y.mean()
        return float((x * y).sum() / x.square().sum())

    return fit
