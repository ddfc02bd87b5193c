"""Spread over seeds: one number of several runs that differ in nothing but their seeds."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from ldbench.results.records import Record

SEEDS = frozenset({"seed", "sampling_seed"})  # keys of configs and protocols that tell runs of one kind apart
OF_CONTENT = frozenset({"hash", "artifacts"})  # and what follows from them


@dataclass(frozen=True)
class Spread:
    """A number over seeds: what a run's own interval, of one set of images, does not tell."""

    mean: float
    std: float | None  # of one run, unbiased variance; None for a single run or infinite values
    values: tuple[float, ...]


def over_seeds(records: Iterable[Record]) -> list[tuple[list[Record], Mapping[str, Spread]]]:
    """Runs that differ only in seeds, in groups, with the spread of each number that all of a group have."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[json.dumps([record.job, record.subject, without_seeds(record.protocol), without_seeds(record.config)], sort_keys=True)].append(record)
    return [(group, {name: spread([record.metrics[name].value for record in group]) for name in shared(group)}) for group in groups.values()]


def spread(values: list[float]) -> Spread:
    """Of some runs."""
    std = stdev(values) if len(values) > 1 and all(map(math.isfinite, values)) else None
    return Spread(fmean(values), std, tuple(values))


def shared(group: list[Record]) -> list[str]:
    """The numbers that every record of a group has, in the order of the first."""
    return [name for name in group[0].metrics if all(name in record.metrics for record in group)]


def without_seeds(said: Any) -> Any:
    """A config or a protocol without its seeds and what is computed from them, inside it too."""
    if isinstance(said, Mapping):
        return {key: without_seeds(value) for key, value in said.items() if key not in SEEDS | OF_CONTENT}
    return [without_seeds(value) for value in said] if isinstance(said, list | tuple) else said
