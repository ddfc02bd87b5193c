"""Studies: from records to what can be held against what, over tokenizers: the quality of generators, and all that was measured of tokenizers.

Generators were sampled under one protocol, which is never mixed with another. A tokenizer is what a recipe gives; its seeds are averaged.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ldbench.io.files import digest
from ldbench.results.metric_names import is_reference
from ldbench.results.models import OTHERS, TOKENIZERS, flat
from ldbench.results.ranking import summarise
from ldbench.results.ranking_conditions import Conditions, conditions_of
from ldbench.results.records import Record, merge_directions

DISTANCES = ("gfid", "gfd_")  # beginnings of the names of the quality that is taken where none is named


@dataclass(frozen=True)
class Study:
    """Numbers by tokenizer, as measured: signs are not turned."""

    target: str  # the metric of generated images
    conditions: Conditions  # of it
    quality: Mapping[str, Mapping[str, float]]  # generator -> tokenizer -> mean over seeds
    measured: Mapping[str, Mapping[str, float]]  # measurement -> tokenizer -> mean over seeds
    made: Mapping[str, Conditions]  # measurement -> how
    artifacts: Mapping[str, Sequence[str]]  # tokenizer -> its artifacts, one for each seed
    records: Sequence[Record]  # all that the numbers are from
    higher_is_better: Mapping[str, bool]  # of the target and the measurements, where the records say so

    @property
    def tokenizers(self) -> list[str]:
        """Those that a generator has been measured on."""
        return sorted({tokenizer for found in self.quality.values() for tokenizer in found})


def make_studies(records: Sequence[Record], target: str | None) -> list[Study]:
    """A study for each data set and protocol of generated images. `target`: their metric; None: each distance gfid, or gfd_ of an extractor.

    Of one measurement done twice the later one counts.
    """
    tokenizers = tokenizers_of(records)
    cells: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in records:
        if record.subject["generator"] is not None and record.artifacts.get("tokenizer") in tokenizers:
            for name in record.metrics:
                if name == target or (target is None and name.startswith(DISTANCES) and not is_reference(name)):
                    cells[name, *conditions_of(record).key].append(record)
    return [study_of(key[0], found, records, tokenizers) for key, found in sorted(cells.items())]


def study_of(target: str, cells: Sequence[Record], records: Sequence[Record], tokenizers: Mapping[str, str]) -> Study:
    """The study of cells that were measured alike, with all that was measured of their tokenizers on the same images."""
    conditions, used = conditions_of(cells[0]), []
    known = {record.artifacts["tokenizer"] for record in cells}
    generators = generators_of(cells)
    quality = {}
    for generator in sorted(set(generators.values())):
        mine = newest(record for record in cells if generators[record.id] == generator)
        quality[generator] = means(mine, target, tokenizers)
        used += mine
    groups: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in records:
        same = record.subject["data"] == conditions.data and record.protocol.get("data") == conditions.protocol.get(
            "data"
        )
        if same and record.subject["generator"] is None and record.artifacts.get("tokenizer") in known:
            groups[conditions_of(record).key].append(record)
    measured, made, better = {}, {}, merge_directions(cells)
    better = {target: better[target]} if target in better else {}
    for (name, key), found in named(groups).items():
        mine = newest(found)
        direction = merge_directions(mine).get(key)
        better |= {} if direction is None else {name: direction}
        measured[name], made[name] = means(mine, key, tokenizers), conditions_of(found[0])
        used += mine
    artifacts: dict[str, list[str]] = defaultdict(list)
    for artifact in sorted(known):
        artifacts[tokenizers[artifact]].append(artifact)
    unique = list({record.id: record for record in used}.values())
    return Study(target, conditions, quality, measured, made, artifacts, unique, better)


def named(groups: Mapping[tuple[str, ...], Sequence[Record]]) -> dict[tuple[str, str], list[Record]]:
    """(name, metric) -> records that tell it, made alike. What was measured in more than one way has a name for each, with a digest of the way."""
    ways: dict[str, dict[tuple[str, ...], list[Record]]] = defaultdict(lambda: defaultdict(list))
    for way, records in groups.items():
        for record in records:
            for metric in record.metrics:
                if not is_reference(metric):
                    ways[metric][way].append(record)
    return {
        (metric if len(found) == 1 else f"{metric} [{digest(list(way))[:8]}]", metric): records
        for metric, found in sorted(ways.items())
        for way, records in sorted(found.items())
    }


def means(records: Iterable[Record], metric: str, tokenizers: Mapping[str, str]) -> dict[str, float]:
    """A metric by tokenizer, its seeds averaged."""
    found = defaultdict(list)
    for record in records:
        if metric in record.metrics:
            found[tokenizers[record.artifacts["tokenizer"]]].append(record.metrics[metric])
    return {tokenizer: summarise(estimates).value for tokenizer, estimates in sorted(found.items())}


def newest(records: Iterable[Record]) -> list[Record]:
    """One record of each set of artifacts and seed: the last that was made."""
    ordered = sorted(records, key=lambda record: (record.created, record.id))
    return list(
        {
            json.dumps([dict(record.artifacts), record.config.get("seed")], sort_keys=True): record
            for record in ordered
        }.values()
    )


def tokenizers_of(records: Iterable[Record]) -> dict[str, str]:
    """Artifact -> what to call its tokenizer: artifacts of one recipe in several seeds are one. Names that would stand twice are the artifacts'."""
    recipes: dict[str, tuple[str, Any, str]] = {}
    for record in records:
        artifact, config = record.artifacts.get("tokenizer"), record.config
        if artifact is None:
            continue
        told = flat({part: config[part] for part in TOKENIZERS if part in config})
        seed = told.pop("tokenizer.seed", None)
        is_recipe = "tokenizer.path" not in told and bool(told)
        if is_recipe or artifact not in recipes:
            recipes[artifact] = (
                json.dumps(told, sort_keys=True) if is_recipe else artifact,
                seed,
                record.subject["tokenizer"] or artifact,
            )
    groups: dict[str, list[str]] = defaultdict(list)
    for artifact, (recipe, _, _) in sorted(recipes.items()):
        groups[recipe].append(artifact)
    found: dict[str, list[list[str]]] = defaultdict(list)
    for members in groups.values():
        seeds = [recipes[artifact][1] for artifact in members]
        apart = len(set(map(str, seeds))) < len(seeds)  # two of one seed differ in what their config does not tell
        for group in ([artifact] for artifact in members) if apart else [members]:
            found[recipes[group[0]][2]].append(group)
    return {
        artifact: name if len(alike) == 1 else group[0]
        for name, alike in found.items()
        for group in alike
        for artifact in group
    }


def generators_of(cells: Iterable[Record]) -> dict[str, str]:
    """Record id -> what to call its generator: its name, and where several recipes have it, a digest behind it."""
    recipes = {}
    for record in cells:
        parts = {key: value for key, value in record.config.items() if key not in (*OTHERS, *TOKENIZERS)}
        recipes[record.id] = (record.subject["generator"] or "", digest(parts)[:8])
    several = {
        name for name, _ in recipes.values() if len({told for other, told in recipes.values() if other == name}) > 1
    }
    return {identity: f"{name}-{told}" if name in several else name for identity, (name, told) in recipes.items()}
