"""The settings of a guidance search: what a grid and rungs may be, and which weight averages are at hand."""

from collections.abc import Mapping, Sequence
from typing import Any

SMALLEST_RUNG = 20  # samples, from which on a set is divided for an interval


def check_search(settings: Mapping[str, Any]) -> None:
    """Raises ValueError for a grid or rungs out of range."""
    for key, what, example in (
        ("scales", "different numbers of at least 0", "[1.0,1.5,2.0]"),
        ("intervals", "different pairs of times with 0 <= low < high <= 1", "[[0.0,1.0],[0.25,1.0]]"),
        ("steps", "different numbers of steps, or null for the sampler's", "[null,50]"),
        ("averages", "different decays, or null for all that the artifact holds", "[0.9999]"),
        ("rungs", f"increasing numbers of samples from {SMALLEST_RUNG} on", "[200,400]"),
    ):
        value = settings[key]
        if key == "averages" and value is None:
            continue
        if not isinstance(value, list) or not value or not VALID[key](value):
            raise ValueError(f"job.{key} must be a list of {what}, such as {example}, got {value!r}.")
    keep = settings["keep"]
    if not is_number(keep) or not 0 < keep < 1:
        raise ValueError(f"job.keep must lie between 0 and 1, got {keep!r}.")


def is_number(value: object) -> bool:
    """Whether a value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_count(value: object) -> bool:
    """Whether a value is a whole number of at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def are_different(values: Sequence[Any]) -> bool:
    """Whether no two values are equal."""
    return all(value not in values[:index] for index, value in enumerate(values))


VALID: Mapping[str, Any] = {
    "scales": lambda values: all(is_number(scale) and scale >= 0 for scale in values) and are_different(values),
    "intervals": lambda values: (
        all(
            isinstance(pair, list) and len(pair) == 2 and all(map(is_number, pair)) and 0 <= pair[0] < pair[1] <= 1
            for pair in values
        )
        and are_different(values)
    ),
    "steps": lambda values: all(count is None or is_count(count) for count in values) and are_different(values),
    "averages": lambda values: all(is_number(decay) and 0 < decay < 1 for decay in values) and are_different(values),
    "rungs": lambda values: all(map(is_count, values)) and values[0] >= SMALLEST_RUNG and values == sorted(set(values)),
}


def chosen_averages(configured: Sequence[float] | None, held: Sequence[float | None]) -> Sequence[float | None]:
    """The averages to search over. Raises ValueError for one that the artifact does not hold."""
    if configured is None:
        return held
    missing = [decay for decay in configured if decay not in held]
    if missing:
        raise ValueError(
            f"job.averages={list(configured)}: the artifact holds no average with the decay {missing[0]}, but "
            f"{', '.join('its exported weights' if decay is None else str(decay) for decay in held)}. "
            "Choose of these, or train with it in generator.ema_decays."
        )
    return list(configured)
