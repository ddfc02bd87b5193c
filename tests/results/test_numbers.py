"""Numbers as people read them."""

import math

import pytest

from ldbench.core.estimate import Estimate
from ldbench.results.numbers import noise, number
from ldbench.results.summaries import summarize


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *[
            (40.48383, "40.48"),
            (0.99240, "0.9924"),
            (9.876e-5, "9.88e-05"),
            (0.001021, "0.001021"),
            (0.0, "0"),
            (-0.133, "-0.1330"),
        ],
        *[
            (12.0, "12.00"),
            (812.0, "812"),
            (1437.0, "1437"),
            (12345.6, "12346"),
            (3512111.0, "3.512M"),
            (1.3e9, "1.3G"),
            (2e18, "2e+18"),
            (7.0, "7.000"),
        ],
        *[(math.inf, "∞"), (-math.inf, "-∞"), (1e-300, "1e-300"), (999999.9, "1000000")],
    ],
)
def test_numbers_have_four_digits(value, text):
    assert number(value) == text


def test_noise_is_the_spread_over_seeds_or_an_interval_or_nothing():
    assert noise(summarize([[Estimate(1.0)], [Estimate(1.2)]])) == "± 0.14"
    assert noise(summarize([[Estimate(1.0, 0.9, 1.1)]])) == "[0.9000, 1.100]"
    assert noise(summarize([[Estimate(1.0)]])) == ""
