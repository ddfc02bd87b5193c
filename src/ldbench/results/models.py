"""Models: which records are of one model with several seeds, and the models' labels."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ldbench.results.records import Record

OTHERS = (  # config that is no part of a model; the protocol holds how samples were drawn
    *(
        "job",
        "jobs",
        "latents",
        "protocol",
        "sampler",
        "guidance",
        "trainer",
        "callbacks",
        "logger",
        "seed",
        "force",
        "paths",
    ),
)
TOKENIZERS = ("data", "tokenizer")  # config that defines a tokenizer
MOST_KEYS = 3  # differing keys that a label names
LONGEST = 40  # characters of a value in a label


@dataclass(frozen=True)
class Model:
    """A model over all of its seeds. `variant` distinguishes models with the same names; empty if there is only one."""

    data: str
    tokenizer: str
    generator: str | None
    key: str  # of its recipe, without seeds
    variant: str = ""

    @property
    def label(self) -> str:
        """The label of its row."""
        names = self.tokenizer if self.generator is None else f"{self.tokenizer} + {self.generator}"
        return f"{names} ({self.variant})" if self.variant else names


def seeds_of(record: Record) -> dict[str, Any]:
    """The seeds of a model: `tokenizer.seed`, and `seed` if it has a generator."""
    tokenizer = record.config.get("tokenizer")
    seeds = {"tokenizer.seed": tokenizer.get("seed") if isinstance(tokenizer, Mapping) else None}
    return seeds | ({"seed": record.config.get("seed")} if record.subject["generator"] is not None else {})


def recipe_of(record: Record) -> dict[str, Any]:
    """The recipe of a model by dotted key: the config of its parts, without seeds."""
    generates = record.subject["generator"] is not None
    parts = [key for key in record.config if (key not in OTHERS if generates else key in TOKENIZERS)]
    return {
        key: value
        for key, value in flat({part: record.config[part] for part in parts}).items()
        if key != "tokenizer.seed"
    }


def models_of(records: Iterable[Record]) -> dict[str, Model]:
    """The model of each record, by the record's id.

    Records are of one model if names and recipes agree. Two artifacts with the same seeds are two models even then,
    since they differ in something that the config does not hold.
    """
    recipes: dict[str, dict[str, Any]] = {}
    models: dict[tuple[str, str, str | None, str], dict[str, dict[str, list[Record]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for record in records:
        recipes[record.id] = recipe_of(record)
        recipe, seeds, artifacts = (
            json.dumps(part, sort_keys=True) for part in (recipes[record.id], seeds_of(record), dict(record.artifacts))
        )
        names = (record.subject["data"] or "", record.subject["tokenizer"] or "", record.subject["generator"])
        models[(*names, recipe)][seeds][artifacts].append(record)
    by_names: dict[tuple[str, str, str | None], list[tuple[str, list[Record]]]] = defaultdict(list)
    for (data, tokenizer, generator, recipe), by_seeds in models.items():
        separate = any(len(by_artifacts) > 1 for by_artifacts in by_seeds.values())
        groups: dict[str, list[Record]] = defaultdict(list)
        for by_artifacts in by_seeds.values():
            for artifacts, members in by_artifacts.items():
                groups[artifacts if separate else ""] += members
        by_names[data, tokenizer, generator] += [(recipe + suffix, members) for suffix, members in groups.items()]
    return {
        record.id: Model(*names, key=key, variant=variant)
        for names, keyed in by_names.items()
        for (key, members), variant in zip(
            keyed, variants([(recipes[members[0].id], members[0]) for _, members in keyed]), strict=True
        )
        for record in members
    }


def variants(models: Sequence[tuple[Mapping[str, Any], Record]]) -> list[str]:
    """What distinguishes models of one name: the keys of their recipes that differ, else their artifacts' names."""
    if len(models) == 1:
        return [""]
    recipes = [recipe for recipe, _ in models]
    keys = sorted({key for recipe in recipes for key in recipe}, key=lambda key: (key.count("."), key))
    differing = [key for key in keys if len({json.dumps(recipe.get(key)) for recipe in recipes}) > 1]
    labels = [
        ", ".join(
            f"{key.rpartition('.')[2]}={str(recipe[key])[:LONGEST]}" for key in differing[:MOST_KEYS] if key in recipe
        )
        for recipe in recipes
    ]
    if len(set(labels)) == len(labels) and all(labels) and len(differing) <= MOST_KEYS:
        return labels
    return [" ".join(dict.fromkeys(record.artifacts.values())) or record.id for _, record in models]


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of nested mappings by dotted key; lists and empty mappings are leaves."""
    if not isinstance(value, Mapping) or not value:
        return {prefix: value}
    leaves: dict[str, Any] = {}
    for key, entry in value.items():
        leaves |= flat(entry, f"{prefix}.{key}" if prefix else str(key))
    return leaves
