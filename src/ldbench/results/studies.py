"""Studies: over tokenizers, the quality of generators beside all measurements of the tokenizers, from records.

All generators of a study were sampled under one protocol. A tokenizer is one recipe; its seeds are averaged.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ldbench.io.files import digest
from ldbench.results.metric_names import is_reference
from ldbench.results.models import OTHERS, TOKENIZERS, flat
from ldbench.results.ranking import summarize
from ldbench.results.ranking_conditions import Conditions, conditions_of
from ldbench.results.records import Record, merge_directions

DISTANCES = ("gfid", "gfd_")  # prefixes of the default targets


@dataclass(frozen=True)
class Study:
    """Numbers by tokenizer, as measured: signs are not flipped."""

    target: str  # the metric of generated images
    conditions: Conditions  # of it
    quality: Mapping[str, Mapping[str, float]]  # generator -> tokenizer -> mean over seeds
    measured: Mapping[str, Mapping[str, float]]  # measurement -> tokenizer -> mean over seeds
    made: Mapping[str, Conditions]  # measurement -> its conditions
    artifacts: Mapping[str, Sequence[str]]  # tokenizer -> its artifacts, one for each seed
    records: Sequence[Record]  # that the numbers come from
    higher_is_better: Mapping[str, bool]  # of the target and the measurements, if the records hold it

    @property
    def tokenizers(self) -> list[str]:
        """The tokenizers with a measured generator."""
        return sorted({tokenizer for values in self.quality.values() for tokenizer in values})


def build_studies(records: Sequence[Record], target: str | None) -> list[Study]:
    """A study for each dataset and protocol of generated images.

    `target`: their metric; None: each distance, gfid or gfd_<extractor>. Of a repeated measurement the latest counts.
    """
    tokenizers = tokenizers_of(records)
    cells: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in records:
        if record.subject["generator"] is not None and record.artifacts.get("tokenizer") in tokenizers:
            for name in record.metrics:
                if name == target or (target is None and name.startswith(DISTANCES) and not is_reference(name)):
                    cells[name, *conditions_of(record).key].append(record)
    return [study_of(key[0], measured, records, tokenizers) for key, measured in sorted(cells.items())]


def study_of(target: str, cells: Sequence[Record], records: Sequence[Record], tokenizers: Mapping[str, str]) -> Study:
    """The study of cells with the same conditions, with all measurements of their tokenizers on the same images."""
    conditions, used = conditions_of(cells[0]), []
    known = {record.artifacts["tokenizer"] for record in cells}
    generators = generators_of(cells)
    quality = {}
    for generator in sorted(set(generators.values())):
        latest = newest(record for record in cells if generators[record.id] == generator)
        quality[generator] = means(latest, target, tokenizers)
        used += latest
    groups: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in records:
        same = record.subject["data"] == conditions.data and record.protocol.get("data") == conditions.protocol.get(
            "data"
        )
        if same and record.subject["generator"] is None and record.artifacts.get("tokenizer") in known:
            groups[conditions_of(record).key].append(record)
    measured, made, better = {}, {}, merge_directions(cells)
    better = {target: better[target]} if target in better else {}
    for (name, key), same in named(groups).items():
        latest = newest(same)
        direction = merge_directions(latest).get(key)
        better |= {} if direction is None else {name: direction}
        measured[name], made[name] = means(latest, key, tokenizers), conditions_of(same[0])
        used += latest
    artifacts: dict[str, list[str]] = defaultdict(list)
    for artifact in sorted(known):
        artifacts[tokenizers[artifact]].append(artifact)
    unique = list({record.id: record for record in used}.values())
    return Study(target, conditions, quality, measured, made, artifacts, unique, better)


def named(groups: Mapping[tuple[str, ...], Sequence[Record]]) -> dict[tuple[str, str], list[Record]]:
    """(name, metric) -> its records, which have the same conditions.

    A metric that was measured under several conditions has a name for each, with a digest of the conditions.
    """
    by_metric: dict[str, dict[tuple[str, ...], list[Record]]] = defaultdict(lambda: defaultdict(list))
    for key, records in groups.items():
        for record in records:
            for metric in record.metrics:
                if not is_reference(metric):
                    by_metric[metric][key].append(record)
    return {
        (metric if len(by_key) == 1 else f"{metric} [{digest(list(key))[:8]}]", metric): records
        for metric, by_key in sorted(by_metric.items())
        for key, records in sorted(by_key.items())
    }


def means(records: Iterable[Record], metric: str, tokenizers: Mapping[str, str]) -> dict[str, float]:
    """A metric by tokenizer, its seeds averaged."""
    estimates = defaultdict(list)
    for record in records:
        if metric in record.metrics:
            estimates[tokenizers[record.artifacts["tokenizer"]]].append(record.metrics[metric])
    return {tokenizer: summarize(numbers).value for tokenizer, numbers in sorted(estimates.items())}


def newest(records: Iterable[Record]) -> list[Record]:
    """The latest record of each set of artifacts and seed."""
    ordered = sorted(records, key=lambda record: (record.created, record.id))
    return list(
        {
            json.dumps([dict(record.artifacts), record.config.get("seed")], sort_keys=True): record
            for record in ordered
        }.values()
    )


def tokenizers_of(records: Iterable[Record]) -> dict[str, str]:
    """Artifact -> the name of its tokenizer. Artifacts of one recipe with several seeds are one tokenizer.

    Tokenizers of the same name are named by their artifacts.
    """
    recipes: dict[str, tuple[str, Any, str]] = {}
    for record in records:
        artifact, config = record.artifacts.get("tokenizer"), record.config
        if artifact is None:
            continue
        recipe = flat({part: config[part] for part in TOKENIZERS if part in config})
        seed = recipe.pop("tokenizer.seed", None)
        is_recipe = "tokenizer.path" not in recipe and bool(recipe)
        if is_recipe or artifact not in recipes:
            recipes[artifact] = (
                json.dumps(recipe, sort_keys=True) if is_recipe else artifact,
                seed,
                record.subject["tokenizer"] or artifact,
            )
    groups: dict[str, list[str]] = defaultdict(list)
    for artifact, (recipe_key, _, _) in sorted(recipes.items()):
        groups[recipe_key].append(artifact)
    by_name: dict[str, list[list[str]]] = defaultdict(list)
    for members in groups.values():
        seeds = [recipes[artifact][1] for artifact in members]
        separate = len(set(map(str, seeds))) < len(seeds)  # two of one seed differ in what their config does not hold
        for group in ([artifact] for artifact in members) if separate else [members]:
            by_name[recipes[group[0]][2]].append(group)
    return {
        artifact: name if len(same_name) == 1 else group[0]
        for name, same_name in by_name.items()
        for group in same_name
        for artifact in group
    }


def generators_of(cells: Iterable[Record]) -> dict[str, str]:
    """Record id -> the name of its generator, with a digest if several recipes have this name."""
    recipes = {}
    for record in cells:
        parts = {key: value for key, value in record.config.items() if key not in (*OTHERS, *TOKENIZERS)}
        recipes[record.id] = (record.subject["generator"] or "", digest(parts)[:8])
    several = {
        name for name, _ in recipes.values() if len({key for other, key in recipes.values() if other == name}) > 1
    }
    return {identity: f"{name}-{key}" if name in several else name for identity, (name, key) in recipes.items()}
