"""Numbers formatted for people."""

import math

from ldbench.results.summaries import Summary

DIGITS = 4  # significant
LETTERS = ((6, "M"), (9, "G"), (12, "T"), (15, "P"))


def number(value: float) -> str:
    """Four significant digits; millions and more with a letter, very small numbers with an exponent, infinity as ∞."""
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    size = abs(value)
    if size == 0:
        return "0"
    for power, letter in LETTERS:
        if 10**power <= size < 10 ** (power + 3):
            return f"{value / 10**power:.{DIGITS}g}{letter}"
    if not 1e-3 <= size < 1e6:
        return f"{value:.3g}"
    if size >= 10**DIGITS or (value == int(value) and size >= 100):
        return f"{value:.0f}"
    return f"{value:.{DIGITS - 1 - math.floor(math.log10(size))}f}"


def noise(summary: Summary) -> str:
    """A number's noise: ± the standard deviation over seeds, else its 95 % interval, else nothing."""
    if summary.spread is not None:
        return f"± {summary.spread:.2g}"
    if summary.low is not None and summary.high is not None:
        return f"[{number(summary.low)}, {number(summary.high)}]"
    return ""
