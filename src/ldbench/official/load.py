"""Released weights: an official name and a file -> the model. A generator gets its objective from the yaml of its name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch import Tensor, nn

from ldbench import official
from ldbench.artifacts import store, weights
from ldbench.config.compose import Registry
from ldbench.core.normalizer import Normalizer

Stats = str | Path | float | tuple[Any, Any]


def load(name: str, source: str | Path | Mapping[str, Tensor] | None, *, stats: Stats | None = None) -> nn.Module:
    """The model in eval mode. Raises ValueError for an unknown name, for weights that do not fit, and for statistics that are of no use."""
    entry = official.entry(name)
    if source is None:
        if entry.hub is None:
            raise ValueError(f"{name} is not on a hub. {entry.where} Then call load_official({name!r}, PATH).")
        source = f"hf://{entry.hub}"
    if entry.kind == "tokenizer" and stats is not None:
        raise ValueError(f"{name} is a tokenizer, and stats are of a generator. Leave them out.")
    found = converted(name, source, averaged=entry.kind == "generator")
    if entry.kind == "tokenizer":
        return store.build(store.Blueprint(found.group, found.component, found.keywords), found.state)
    return store.build(*generator_of(Registry().compose("train", [f"generator={name}"]), found, stats))


def converted(name: str, source: str | Path | Mapping[str, Tensor], *, averaged: bool) -> official.Converted:
    """Official weights under our names. Raises ValueError, naming the file, for tensors that are not that model's."""
    state, settings = weights.read_weights(source, averaged=averaged), weights.read_settings(source)
    try:
        return official.convert(name, state, settings)
    except ValueError as error:
        raise error if isinstance(source, Mapping) else ValueError(f"{source}: {error}") from error


def generator_of(
    cfg: DictConfig, found: official.Converted, stats: Stats | None
) -> tuple[store.Blueprint, dict[str, Tensor]]:
    """The blueprint and the state dict of a whole generator around an official backbone, with the objective of a config."""
    normaliser = None if stats is None else read_stats(stats, found.keywords["latent"]["channels"])
    objective = Registry().with_component_names(cfg.objective)
    if not found.keywords["learned_variance"] and objective.get("variance") == "learned_range":
        objective["variance"] = "fixed_large"  # what the official code takes without one
    keywords = {
        "backbone": {"component": found.component, **found.keywords},
        "objective": objective,
        "normaliser": None if normaliser is None else {"channels": len(normaliser.mean)},
        "class_dropout": cfg.generator.class_dropout if found.keywords["has_null_class"] else 0.0,
    }
    state = {f"backbone.{key}": value for key, value in found.state.items()}
    state |= (
        {} if normaliser is None else {f"normaliser.{key}": value for key, value in normaliser.state_dict().items()}
    )
    return store.Blueprint("generator", "generator", keywords), state


def read_stats(stats: Stats, channels: int) -> Normalizer:
    """The normaliser of `latents_stats.pt` (or another file of tensors `mean` and `std`), of (mean, std), or of one scale.

    Raises ValueError for a file without these, and for statistics of other channels.
    """
    if isinstance(stats, int | float):
        return Normalizer.from_scale(stats, channels=channels)
    if isinstance(stats, str | Path):
        held = weights.read_weights(stats)
        if not {"mean", "std"} <= held.keys():
            raise ValueError(
                f"{stats} holds {', '.join(list(held)[:5])}. Expected tensors `mean` and `std`, as in latents_stats.pt."
            )
        stats = (held["mean"], held["std"])
    return Normalizer.from_stats(*stats, channels=channels)
