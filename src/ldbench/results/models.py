"""Who was measured: which records are of one model in several seeds, and what to call the models."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ldbench.results.records import Record

OTHERS = (  # config that is of no model; the protocol tells how samples were drawn
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
TOKENIZERS = ("data", "tokenizer")  # config that a tokenizer is made of
MOST = 3  # differing keys that a label names
LONGEST = 40  # characters of a value in a label


@dataclass(frozen=True)
class Subject:
    """A model, whatever its seeds. `variant` tells models of the same names apart, for people; it is empty where there is nothing to tell."""

    data: str
    tokenizer: str
    generator: str | None
    key: str  # of all that it is made of but its seeds
    variant: str = ""

    @property
    def label(self) -> str:
        """What a row is called."""
        names = self.tokenizer if self.generator is None else f"{self.tokenizer} + {self.generator}"
        return f"{names} ({self.variant})" if self.variant else names


def seeds_of(record: Record) -> dict[str, Any]:
    """The seeds that a model was made with: `tokenizer.seed`, and `seed` where it generates."""
    tokenizer = record.config.get("tokenizer")
    told = {"tokenizer.seed": tokenizer.get("seed") if isinstance(tokenizer, Mapping) else None}
    return told | ({"seed": record.config.get("seed")} if record.subject["generator"] is not None else {})


def recipe_of(record: Record) -> dict[str, Any]:
    """What a model is made of, by dotted key: the config of its parts without seeds."""
    generates = record.subject["generator"] is not None
    parts = [key for key in record.config if (key not in OTHERS if generates else key in TOKENIZERS)]
    return {
        key: value
        for key, value in flat({part: record.config[part] for part in parts}).items()
        if key != "tokenizer.seed"
    }


def subjects_of(records: Iterable[Record]) -> dict[str, Subject]:
    """The subject of each record, by the record's id.

    Records are of one subject where names and recipes agree; two artifacts of the same seeds are two subjects all the same,
    since something that the config does not tell makes them differ.
    """
    recipes: dict[str, dict[str, Any]] = {}
    models: dict[tuple[str, str, str | None, str], dict[str, dict[str, list[Record]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for record in records:
        recipes[record.id] = recipe_of(record)
        who = (record.subject["data"] or "", record.subject["tokenizer"] or "", record.subject["generator"])
        recipe, seeds, made = (
            json.dumps(said, sort_keys=True) for said in (recipes[record.id], seeds_of(record), dict(record.artifacts))
        )
        models[(*who, recipe)][seeds][made].append(record)
    by_names: dict[tuple[str, str, str | None], list[tuple[str, list[Record]]]] = defaultdict(list)
    for (*who, recipe), by_seeds in models.items():
        apart = any(len(artifacts) > 1 for artifacts in by_seeds.values())
        groups: dict[str, list[Record]] = defaultdict(list)
        for artifacts in by_seeds.values():
            for made, found in artifacts.items():
                groups[made if apart else ""] += found
        by_names[tuple(who)] += [(recipe + made, found) for made, found in groups.items()]  # type: ignore[index]
    return {
        record.id: Subject(*names, key=key, variant=variant)
        for names, groups in by_names.items()
        for (key, found), variant in zip(
            groups, variants([(recipes[found[0].id], found[0]) for _, found in groups]), strict=True
        )
        for record in found
    }


def variants(models: Sequence[tuple[Mapping[str, Any], Record]]) -> list[str]:
    """What tells models of one name apart: the few keys of their recipes that differ, else the names of their artifacts."""
    if len(models) == 1:
        return [""]
    recipes = [recipe for recipe, _ in models]
    keys = sorted({key for recipe in recipes for key in recipe}, key=lambda key: (key.count("."), key))
    differing = [key for key in keys if len({json.dumps(recipe.get(key)) for recipe in recipes}) > 1]
    told = [
        ", ".join(f"{key.rpartition('.')[2]}={str(recipe[key])[:LONGEST]}" for key in differing[:MOST] if key in recipe)
        for recipe in recipes
    ]
    if len(set(told)) == len(told) and all(told) and len(differing) <= MOST:
        return told
    return [" ".join(dict.fromkeys(record.artifacts.values())) or record.id for _, record in models]


def flat(value: Any, place: str = "") -> dict[str, Any]:
    """The leaves of nested mappings by dotted key; lists and empty mappings are leaves."""
    if not isinstance(value, Mapping) or not value:
        return {place: value}
    found: dict[str, Any] = {}
    for key, entry in value.items():
        found |= flat(entry, f"{place}.{key}" if place else str(key))
    return found
