"""Rates of simulations: whether one exceeds its bound beyond the simulation's own chance."""

import os

from scipy.stats import beta

from ldbench.core.estimate import Estimate

CONFIDENCE = 0.99  # one-sided, of a rate's limits


def lower_limit(hits: int, count: int) -> float:
    """The one-sided 99 % lower limit of a rate (Clopper and Pearson)."""
    return 0.0 if hits == 0 else float(beta.ppf(1 - CONFIDENCE, hits, count - hits + 1))


def upper_limit(hits: int, count: int) -> float:
    """The one-sided 99 % upper limit of a rate (Clopper and Pearson)."""
    return 1.0 if hits == count else float(beta.ppf(CONFIDENCE, hits + 1, count - hits))


def report(claim: str, figure: str) -> None:
    """Prints a figure of the table, with `pytest -s`."""
    print(f"{os.linesep}| {claim} | {figure} |", end="")


def check_coverage(claim: str, estimates: list[Estimate], truth: float) -> None:
    """Reports the share of intervals that contain the truth, which must be 90 to 98 %."""
    hits, count = sum(estimate.low <= truth <= estimate.high for estimate in estimates), len(estimates)
    report(f"coverage of the interval of {claim}", f"{100 * hits / count:.1f} %")
    assert upper_limit(hits, count) >= 0.90
    assert lower_limit(hits, count) <= 0.98
