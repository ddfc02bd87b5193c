"""Replicates: which records of a model count, and what each number is repeated over.

A tokenizer is trained with several seeds, on each of them a generator with several seeds, and each generator may be
sampled with several seeds.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence

from ldbench.core.estimate import Estimate
from ldbench.results.models import model_key, seeds_of
from ldbench.results.records import Record
from ldbench.results.summaries import pooled


def artifact_of(record: Record, role: str) -> str | None:
    """The identity of a measured artifact: its weights' key, or its name in a record that does not hold it."""
    return (record.weights or {}).get(role, record.artifacts.get(role))


def seed_of(record: Record, role: str) -> int | None:
    """The seed of an artifact's training; None for released weights."""
    return seeds_of(record).get(role)


def sampling_seed(record: Record) -> object:
    """The seed that samples were drawn with; None in a record without a generator."""
    return record.config.get("seed") if record.subject["generator"] is not None else None


def replicates(records: Iterable[Record]) -> list[Record]:
    """One record for each seed of each model: the latest, if one was measured more than once.

    One recipe gives other weights on another machine. All numbers of a seed are of one artifact, the one that was
    measured last: never of a tokenizer of one machine and a generator of another.
    """
    latest = on_latest_artifacts(on_latest_artifacts(records, "tokenizer"), "generator")
    by_seed = {json.dumps([model_key(record), seeds_of(record), sampling_seed(record)]): record for record in latest}
    return [record for _, record in sorted(by_seed.items())]


def on_latest_artifacts(records: Iterable[Record], role: str) -> list[Record]:
    """For each seed the records of one artifact: of several, that of the latest record. In the order of time."""
    ordered = sorted(records, key=lambda record: (record.created, record.id))

    def place(record: Record) -> tuple[object, ...]:
        above = () if role == "tokenizer" else ((record.models or {}).get(role), seed_of(record, role))
        return (
            model_key(record) if record.models is None else record.models.get("tokenizer"),
            seed_of(record, "tokenizer"),
            *above,
        )

    chosen = {place(record): artifact_of(record, role) for record in ordered}
    return [record for record in ordered if artifact_of(record, role) == chosen[place(record)]]


def nested(records: Iterable[Record], metric: str) -> list[list[list[Record]]]:
    """The records of one model that hold a metric, by tokenizer seed, by generator seed and by sampling seed."""
    nests: dict[int | None, dict[int | None, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if metric in record.metrics:
            nests[seed_of(record, "tokenizer")][seed_of(record, "generator")].append(record)
    return [list(inner.values()) for inner in nests.values()]


def estimates_of(nests: Sequence[Sequence[Sequence[Record]]], metric: str) -> list[list[Estimate]]:
    """A metric by tokenizer seed and generator seed: the mean over sampling seeds."""
    return [[pooled([record.metrics[metric] for record in samplings]) for samplings in inner] for inner in nests]
