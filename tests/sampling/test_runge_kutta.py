"""Runge-Kutta rules: each converges with its stated order, on the exponential function."""

import math

import pytest
import torch

from ldbench.sampling.runge_kutta import RULES, get_rule


@pytest.mark.parametrize("name", RULES)
def test_a_rule_converges_with_its_order_and_calls_its_stages(name, slope):
    rule, errors, calls = RULES[name], [], 0

    def velocity(x, time):
        nonlocal calls
        calls += 1
        return math.cos(time) * x

    nums_steps = (32, 64, 128)
    for num_steps in nums_steps:
        x = torch.ones((), dtype=torch.float64)
        for i in range(num_steps):
            x = rule.step(velocity, x, i / num_steps, (i + 1) / num_steps)
        errors.append(abs(float(x) - math.exp(math.sin(1))))
    assert slope(nums_steps, errors) == pytest.approx(rule.order, abs=0.15)
    assert calls == sum(nums_steps) * len(rule.nodes)


@pytest.mark.parametrize("name", RULES)
def test_a_rule_evaluates_the_end_of_a_step_exactly(name):
    times = []
    RULES[name].step(lambda x, time: times.append(time) or x, torch.ones(()), 0.3, 1.0)
    assert max(times) <= 1.0
    assert RULES[name].nodes[-1] != 1 or times[-1] == 1.0


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="Choose one of euler, midpoint, heun, heun3, rk4"):
        get_rule("rk45")
