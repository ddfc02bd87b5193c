"""Numbers as people read them."""

import math

from ldbench.results.ranking import Summary

DIGITS = 4  # significant


def number(value: float) -> str:
    """Four significant digits; large numbers whole, very small and very large ones with an exponent, infinity as ∞."""
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    size = abs(value)
    if size == 0:
        return "0"
    if not 1e-3 <= size < 1e7:
        return f"{value:.3g}"
    if size >= 10**DIGITS or (value == int(value) and size >= 1):
        return f"{value:.0f}"
    return f"{value:.{DIGITS - 1 - math.floor(math.log10(size))}f}"


def noise(summary: Summary) -> str:
    """What is known of a number's noise: ± the standard deviation over seeds, else its 95 % interval, else nothing."""
    if summary.spread is not None:
        return f"± {summary.spread:.2g}"
    if summary.low is not None and summary.high is not None:
        return f"[{number(summary.low)}, {number(summary.high)}]"
    return ""
