"""The types of all config values, held against a config before any work.

Values of a component have the types of its constructor, and settings of a recipe those of its dataclass; `Config` has
those of the few keys that no code takes as they stand.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from functools import cache
from types import NoneType
from typing import Any, TypedDict, get_args, get_origin, get_type_hints, is_typeddict

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError

from ldbench.config.components import validate_annotated, validate_types
from ldbench.config.compose import plain
from ldbench.config.value_types import Natural, Positive, Share, is_plain, shown
from ldbench.pipeline.measure import PROTOCOLS
from ldbench.results.protocol import Protocol
from ldbench.training.generator_config import GeneratorTrainingConfig
from ldbench.training.mask_schedules import MaskRatio
from ldbench.training.stage_config import Stage

# bounds of values by the last part of their key, wherever they stand
ANYWHERE = {"seed": Natural, "image_size": Positive, "patch_size": Positive, "every": Natural, "num_images": Positive}


class Paths(TypedDict, total=False):
    """The folders of outputs."""

    root: str
    artifacts: str
    latents: str
    records: str
    runs: str


class Trainer(TypedDict, total=False):
    """The trainer's settings, which conf/trainer/default.yaml explains."""

    accelerator: str
    devices: Positive
    num_nodes: Positive
    adaptive: str
    strategy: str
    precision: str
    threads: Positive
    workers: Natural
    resident: bool
    compile: bool
    deterministic: bool
    patience: Positive
    log_every: Positive
    limit_steps: Natural | None
    overfit_batches: Natural


class Tokenizer(TypedDict, total=False):
    """A tokenizer's settings beside its model."""

    name: str
    image_size: Positive | None
    seed: Natural
    path: str | None
    weights: str | None
    encoder_init: str | Mapping[str, Any] | None  # a file, or the recipe of a feature network
    normalization: str | None
    model: Mapping[str, Any]
    losses: Mapping[str, Mapping[str, Any] | None]  # null: without this one
    stages: Mapping[str, Stage]


class Generator(TypedDict, total=False):
    """A generator's settings beside those of its training."""

    name: str
    path: str | None
    weights: str | None
    stats: str | float | Sequence[Any] | None
    class_dropout: Share
    backbone: Mapping[str, Any]
    losses: Mapping[str, Mapping[str, Any] | None]  # on its inner tokens; null: without this one


class Config(TypedDict, total=False):
    """The keys at the top of what `train` and `run` compose."""

    seed: Natural
    init: str | None
    init_partial: bool
    force: bool
    plugins: Sequence[str] | None
    jobs: Mapping[str, Mapping[str, Any]]
    job: Mapping[str, Any]
    latents: Mapping[str, Any]
    callbacks: Mapping[str, Mapping[str, Any]]
    logger: Mapping[str, Any]
    loggers: Mapping[str, Mapping[str, Any]]
    data: Mapping[str, Any]
    paths: Paths
    trainer: Trainer
    protocol: Protocol
    tokenizer: Tokenizer
    generator: Generator


def validate_values(cfg: DictConfig) -> None:
    """Raises ValueError, naming the key and what is expected, for a value of another type than what reads it takes."""
    validate_config(resolved(cfg))


def validate_config(config: Mapping[str, Any]) -> None:
    """Raises ValueError as `validate_values`, for a plain config without missing values."""
    validate_section("", config, Config)
    config = copy.deepcopy(config)
    for node in (config.get("job", {}), *config.get("jobs", {}).values()):
        for key in PROTOCOLS:
            if node.get(key) is None:  # the protocol's value
                node.pop(key, None)
    config.get("guidance", {}).pop("guide", None)  # the path of what the constructor takes
    for key, node in config.items():
        validate_types(node, key)
    validate_bounds("", config)


def validate_bounds(key: str, value: Any) -> None:
    """Raises ValueError for what is out of its bounds wherever it stands, by its name."""
    if isinstance(value, Mapping):
        for name, entry in value.items():
            below = f"{key}.{name}" if key else str(name)
            if name in ANYWHERE and entry is not None and not isinstance(entry, Mapping):
                validate_annotated(below, entry, ANYWHERE[name])
            validate_bounds(below, entry)


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """A plain copy of a config, without values that are missing."""

    def resolve(value: Any, key: str) -> Any:
        if isinstance(value, dict):
            below = {name: resolve(entry, f"{key}.{name}" if key else str(name)) for name, entry in value.items()}
            return {name: entry for name, entry in below.items() if not (isinstance(entry, str) and entry == MISSING)}
        if isinstance(value, list):
            return [resolve(entry, f"{key}[{index}]") for index, entry in enumerate(value)]
        if isinstance(value, str) and "${" in value:
            try:
                given = plain(OmegaConf.select(cfg, key))
            except InterpolationToMissingValueError:
                return MISSING
            return MISSING if given is None else given  # null: an artifact will say it
        return value

    return resolve(OmegaConf.to_container(cfg, resolve=False), "")


def validate_section(key: str, node: Mapping[str, Any], kind: type) -> None:
    """Raises ValueError as `validate_values`, for the keys that a class has."""
    for name, annotation in hints(kind).items():
        if name in node:
            validate_entry(f"{key}.{name}" if key else name, node[name], annotation)


def validate_entry(key: str, value: Any, annotation: Any) -> None:
    """Raises ValueError as `validate_values`, for one value."""
    section = is_dataclass(annotation) or is_typeddict(annotation)
    mapping = get_origin(annotation) is Mapping
    if not section and not mapping:
        validate_annotated(key, value, annotation)
    elif not isinstance(value, Mapping):
        cure = f" Leave single entries out with ~{key}.NAME." if mapping and value is None else ""
        cure = cure or (f" Set its keys, as in {key}.{next(iter(hints(annotation)))}=..." if section else "")
        raise ValueError(f"{key} must be a mapping, got {shown(value)}.{cure}")
    elif section:
        validate_section(key, value, annotation)
    elif (entries := get_args(annotation)[1]) is not Any:
        optional = NoneType in get_args(entries)
        for name, entry in value.items():
            if is_plain(entries):
                validate_annotated(f"{key}.{name}", entry, entries)
            elif entry is not None:
                validate_entry(f"{key}.{name}", entry, get_args(entries)[0] if optional else entries)
            elif not optional:
                raise ValueError(f"{key}.{name} must be a mapping, got null. Leave it out with ~{key}.{name}.")


@cache
def hints(kind: type) -> Mapping[str, Any]:
    """The types of the values that a class has, as a config holds them."""
    found = get_type_hints(kind, include_extras=True)
    if kind is Generator:
        found |= get_type_hints(GeneratorTrainingConfig)
    if kind is Stage:
        found |= {"mask_ratio": MaskRatio | float, "losses": Mapping[str, Mapping[str, Any] | None]}
    return found
