"""Models: which records are of one model with several seeds, and the models' labels."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ldbench.results.records import Record

TOKENIZERS = ("data", "tokenizer", "trainer", "init")  # config in which tokenizers differ
GENERATORS = ("generator", "interpolant", "times", "objective", "latents")  # and generators too
# keys there of seeds, of places, of what changes numbers by rounding alone, and of what changes none
UNNAMED = {
    "tokenizer": ("seed", "path"),
    "data": ("root", "check", "on_error"),
    "trainer": (
        "threads",
        "devices",
        "num_nodes",
        "accelerator",
        "strategy",
        "workers",
        "resident",
        "deterministic",
        "log_every",
        "patience",
    ),
    "latents": (
        *("workers", "batch_size", "num_processes", "shard_size", "verify", "export"),
        *("cache_dir", "cache_size", "retries", "timeout", "ahead"),
    ),
    "generator": ("path", "ema_decays"),  # the exported average has a key of its own
}
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
    samples: bool = False  # whether it is a set of somebody's images, whose name stands in the tokenizer's place

    @property
    def label(self) -> str:
        """The label of its row."""
        names = self.tokenizer if self.generator is None else f"{self.tokenizer} + {self.generator}"
        return f"{names} ({self.variant})" if self.variant else names


def seeds_of(record: Record) -> dict[str, int | None]:
    """The seeds of a model: `tokenizer`, and `generator` if it has one; none in a record of schema 1."""
    return dict(record.seeds or {})


def model_key(record: Record) -> str:
    """The identity of a record's model. Records of schema 1 hold none: each artifact is a model there."""
    if record.models is None:
        return f"schema {record.schema} {json.dumps(dict(record.artifacts), sort_keys=True)}"
    return json.dumps(dict(record.models), sort_keys=True)


def recipe_of(record: Record) -> dict[str, Any]:
    """The config of a model's parts by dotted key, in which models of one name may differ; for labels alone."""
    parts = (*TOKENIZERS, *(GENERATORS if record.subject["generator"] is not None else ()))
    recipe: dict[str, Any] = {}
    for part in parts:
        value = record.config.get(part)
        if isinstance(value, Mapping):
            value = {key: entry for key, entry in value.items() if key not in UNNAMED.get(part, ())}
        if part in record.config:
            recipe |= flat({part: value})
    return recipe


def models_of(records: Iterable[Record]) -> dict[str, Model]:
    """The model of each record, by the record's id. Records are of one model if they hold its digests."""
    by_data: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        by_data[record.subject["data"] or ""][model_key(record)].append(record)
    by_names: dict[tuple[str, str, str | None], list[tuple[str, list[Record]]]] = defaultdict(list)
    for data, by_key in by_data.items():
        for key, members in by_key.items():
            # an artifact that is opened by its path may have been renamed
            subject = min((record.subject for record in members), key=lambda subject: json.dumps(dict(subject)))
            name = subject.get("samples") or subject["tokenizer"] or ""
            by_names[data, name, subject["generator"]].append((key, members))
    return {
        record.id: Model(*names, key=key, variant=variant, samples="samples" in members[0].subject)
        for names, keyed in by_names.items()
        for (key, members), variant in zip(
            keyed, variants([(recipe_of(named_best(members)), members[0]) for _, members in keyed]), strict=True
        )
        for record in members
    }


def named_best(records: Sequence[Record]) -> Record:
    """The record of a model whose config describes it: that of its training, before one that opened an artifact."""
    return min(records, key=lambda record: (is_opened(record), record.created, record.id))


def is_opened(record: Record, role: str = "tokenizer") -> bool:
    """Whether its tokenizer or generator was opened as an artifact, so that the config does not describe it."""
    node = record.config.get(role)
    return not isinstance(node, Mapping) or "path" in node


def cuts_of(recipe: Mapping[str, Any]) -> list[str]:
    """The trainer's settings that made a training less than its recipe, which a label always names."""
    limit, overfit = recipe.get("trainer.limit_steps"), recipe.get("trainer.overfit_batches")
    limited = isinstance(limit, int) and any(
        isinstance(value, int) and value > limit
        for key, value in recipe.items()
        if key == "generator.max_steps" or (key.startswith("tokenizer.stages.") and key.endswith(".max_steps"))
    )
    return [*(["trainer.limit_steps"] if limited else []), *(["trainer.overfit_batches"] if overfit else [])]


def variants(models: Sequence[tuple[Mapping[str, Any], Record]]) -> list[str]:
    """What a label says beside the names.

    What cut a training short is always said. Models of one name are further told apart by the keys of their recipes
    that differ, else by their artifacts' names.
    """
    recipes = [recipe for recipe, _ in models]
    if len(models) == 1:
        return [named(recipes[0], cuts_of(recipes[0]))]
    cuts = {key for recipe in recipes for key in cuts_of(recipe)}
    keys = sorted(
        {key for recipe in recipes for key in recipe if key not in cuts}, key=lambda key: (key.count("."), key)
    )
    differing = [key for key in keys if len({json.dumps(recipe.get(key)) for recipe in recipes}) > 1]
    labels = [named(recipe, [*differing[:MOST_KEYS], *cuts_of(recipe)]) for recipe in recipes]
    if len(set(labels)) == len(labels) and (all(labels) or not differing) and len(differing) <= MOST_KEYS:
        return labels
    artifacts = [" ".join(dict.fromkeys(record.artifacts.values())) or record.id for _, record in models]
    return [
        ", ".join(filter(None, (name, named(recipe, cuts_of(recipe)))))
        for name, recipe in zip(artifacts, recipes, strict=True)
    ]


def named(recipe: Mapping[str, Any], keys: Iterable[str]) -> str:
    """Keys of a recipe in a label, with their values; each once."""
    return ", ".join(f"{key.rpartition('.')[2]}={shown(recipe[key])}" for key in dict.fromkeys(keys) if key in recipe)


def shown(value: Any) -> str:
    """The beginning of a value in a label, as on a command line: `null` for None, `true` for True."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text[:LONGEST]


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of nested mappings by dotted key; lists and empty mappings are leaves."""
    if not isinstance(value, Mapping) or not value:
        return {prefix: value}
    leaves: dict[str, Any] = {}
    for key, entry in value.items():
        leaves |= flat(entry, f"{prefix}.{key}" if prefix else str(key))
    return leaves
