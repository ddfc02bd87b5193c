"""Loads released models by official name and file. A generator gets its objective from the yaml of its name."""

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
    """The model in eval mode. Raises ValueError for an unknown name, and for weights or statistics that do not fit."""
    entry = official.entry(name)
    if source is None:
        if entry.hub is None:
            raise ValueError(f"{name} is not on a hub. {entry.where} Then call load_official({name!r}, PATH).")
        source = f"hf://{entry.hub}"
    if entry.kind == "tokenizer" and stats is not None:
        raise ValueError(f"{name} is a tokenizer, and stats are of a generator. Leave them out.")
    converted = convert_weights(name, source)
    if entry.kind == "tokenizer":
        blueprint = store.Blueprint(converted.group, converted.component, converted.keywords)
        return store.build(blueprint, converted.state)
    return store.build(*describe_generator(Registry().compose("train", [f"generator={name}"]), converted, stats))


def convert_weights(name: str, source: str | Path | Mapping[str, Tensor]) -> official.Converted:
    """Official weights under our names. Raises ValueError, naming the file, for tensors that are not that model's."""
    averaged = official.entry(name).takes_averaged
    state, settings = weights.read_weights(source, averaged=averaged), weights.read_settings(source)
    try:
        return official.convert(name, state, settings)
    except ValueError as error:
        raise error if isinstance(source, Mapping) else ValueError(f"{source}: {error}") from error


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
    if isinstance(stats, int | float):
        return Normalizer.from_scale(stats, channels=channels)
    return Normalizer.from_stats(
        *(read_stats_file(stats) if isinstance(stats, str | Path) else stats), channels=channels
    )


def validate_stats(stats: str | float) -> None:
    """Raises ValueError for a scale that is not above zero, and for a file without statistics."""
    if isinstance(stats, str):
        read_stats_file(stats)
    else:
        Normalizer.from_scale(stats, channels=1)


def read_stats_file(path: str | Path) -> tuple[Tensor, Tensor]:
    """The tensors `mean` and `std` of a file. Raises ValueError for a file without these."""
    tensors = weights.read_weights(path)
    if not {"mean", "std"} <= tensors.keys():
        raise ValueError(
            f"{path} holds {', '.join(list(tensors)[:5])}. Expected tensors `mean` and `std`, as in latents_stats.pt."
        )
    return tensors["mean"], tensors["std"]
