"""Loads released models by official name and file. A generator gets its objective from the yaml of its name."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from omegaconf import DictConfig
from torch import Tensor, nn

from ldbench import official
from ldbench.artifacts import store, weights
from ldbench.artifacts.weight_names import STATS
from ldbench.config.compose import Registry
from ldbench.core.latent_stats import LatentStats, from_settings
from ldbench.core.normalizer import Normalizer

log = logging.getLogger(__name__)

# a file, a scale, [mean, std]
Stats = str | Path | float | Sequence[Any] | LatentStats


def load(
    name: str,
    source: str | Path | Mapping[str, Tensor] | None,
    *,
    stats: Stats | None = None,
    settings: Mapping[str, Any] | None = None,  # beside those of a config.json, and before them
) -> nn.Module:
    """The model in eval mode. Raises ValueError for an unknown name, and for weights or statistics that do not fit."""
    entry = official.entry(name)
    if source is None:
        if entry.hub is None:
            raise ValueError(f"{name} is not on a hub. {entry.where} Then call load_official({name!r}, PATH).")
        source = f"hf://{entry.hub}"
        if entry.unverified:
            log.warning(
                "%s is fetched from %s, a name that was not verified. If it fails: %s", name, source, entry.where
            )
    if entry.kind == "tokenizer" and stats is not None:
        raise ValueError(f"{name} is a tokenizer, and stats are of a generator. Leave them out.")
    converted = convert_weights(name, source, settings or {})
    if entry.kind == "tokenizer":
        blueprint = store.Blueprint(converted.group, converted.component, converted.keywords, converted.latent_stats)
        return store.build(blueprint, converted.state)
    return store.build(*describe_generator(Registry().compose("train", [f"generator={name}"]), converted, stats))


def convert_weights(
    name: str, source: str | Path | Mapping[str, Tensor], given: Mapping[str, Any] = MappingProxyType({})
) -> official.Converted:
    """Official weights under our names, with the settings of their config.json or the given ones.

    Raises ValueError, naming the file, for tensors that are not that model's.
    """
    entry = official.entry(name)
    state = weights.read_weights(source, averaged=entry.takes_averaged)
    settings = {**weights.read_settings(source), **given}
    try:
        converted = official.convert(name, state, settings)
        if entry.kind == "generator":
            return converted
        return replace(converted, latent_stats=latent_stats(name, source, settings, state))
    except ValueError as error:
        raise error if isinstance(source, Mapping) else ValueError(f"{source}: {error}") from error


def latent_stats(
    name: str,
    source: str | Path | Mapping[str, Tensor],
    settings: Mapping[str, Any],
    state: Mapping[str, Tensor] | None = None,  # its tensors, which some families need; None: they are read if so
) -> LatentStats | None:
    """A released tokenizer's own statistics of its latents: of its settings, of its folder, or as published.

    Raises ValueError for settings that contradict each other, and for a file without statistics.
    """
    entry, family = official.entry(name), official.family_of(name)
    if hasattr(family, "latent_stats"):
        if state is None and family.reads_state(settings):
            state = weights.read_weights(source)
        return cast("LatentStats | None", family.latent_stats(settings, state))
    stated = from_settings(settings)
    if stated is not None:
        return stated
    if not isinstance(source, Mapping) and not Path(source).expanduser().is_file():  # a folder, which belongs together
        file = weights.locate(source).with_name(STATS)
        if file.is_file():
            return read_stats_file(file)
    if entry.latent_stats is not None:
        return LatentStats(*entry.latent_stats)
    return None if entry.latent_scale is None else LatentStats.from_scale(entry.latent_scale)


def released_latent_stats(
    name: str, source: str | Path, given: Mapping[str, Any] = MappingProxyType({})
) -> LatentStats | None:
    """`latent_stats` of a released tokenizer by its name, without reading its weights where that is not needed."""
    official.entry(name, "tokenizer")
    return latent_stats(name, source, {**weights.read_settings(source), **given})


def describe_generator(
    cfg: DictConfig, converted: official.Converted, stats: Stats | None
) -> tuple[store.Blueprint, dict[str, Tensor]]:
    """The blueprint and state dict of a generator with an official backbone and the objective of a config."""
    normalizer = None if stats is None else read_stats(stats, converted.keywords["latent"]["channels"])
    objective = Registry().with_component_names(cfg.objective)
    if not converted.keywords["learned_variance"] and objective.get("variance") == "learned_range":
        objective["variance"] = "fixed_large"  # the official code's choice without one
    keywords = {
        "backbone": {"component": converted.component, **converted.keywords},
        "objective": objective,
        "normaliser": None if normalizer is None else {"channels": len(normalizer.mean)},
        "class_dropout": cfg.generator.class_dropout if converted.keywords["has_null_class"] else 0.0,
    }
    state = {f"backbone.{key}": value for key, value in converted.state.items()}
    state |= (
        {} if normalizer is None else {f"normaliser.{key}": value for key, value in normalizer.state_dict().items()}
    )
    return store.Blueprint("generator", "generator", keywords), state


def read_stats(stats: Stats, channels: int) -> Normalizer:
    """The normalizer from `latents_stats.pt` (or a file with tensors `mean` and `std`), (mean, std), or one scale.

    Raises ValueError for a file without these, and for statistics of another number of channels.
    """
    return as_latent_stats(stats).normalizer(channels)


def as_latent_stats(stats: Stats) -> LatentStats:
    """Statistics from a file, (mean, std), or one scale. Raises ValueError for what are none."""
    if isinstance(stats, LatentStats):
        return stats
    if isinstance(stats, str | Path):
        return read_stats_file(stats)
    if isinstance(stats, int | float):
        return LatentStats.from_scale(stats)
    return LatentStats.from_pair([flat(value) if isinstance(value, Tensor) else value for value in stats])


def read_stats_file(path: str | Path) -> LatentStats:
    """The tensors `mean` and `std` of a file. Raises ValueError for a file without these."""
    tensors = weights.read_weights(path)
    if not {"mean", "std"} <= tensors.keys():
        raise ValueError(
            f"{path} holds {', '.join(list(tensors)[:5])}. Expected tensors `mean` and `std`, as in latents_stats.pt."
        )
    return LatentStats(flat(tensors["mean"]), flat(tensors["std"]))


def flat(
    value: Tensor,  # (C,), (1, C, 1, 1), or one number
) -> float | tuple[float, ...]:
    """The numbers of a tensor; one number stays one number."""
    numbers = value.double().flatten().tolist()
    return float(value) if value.ndim == 0 else tuple(numbers)
