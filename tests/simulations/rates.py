"""Rates of simulations: whether one exceeds its bound beyond the simulation's own chance."""

import os

from scipy.stats import beta

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
