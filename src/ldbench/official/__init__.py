"""Officially released models: one key map for each checkpoint family. Listing them loads no torch."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Set
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


REVISION = 1  # raised when a key map changes what an import ends in


@dataclass(frozen=True)
class Entry:
    """One official model: where it is from, under which licence, and what to cite."""

    source: str  # the repository
    licence: str
    citation: str
    where: str  # how to get the file, as a sentence
    hub: str | None = None  # its place on the Hugging Face hub, owner/name
    latent_scale: float | None = None  # what its released generators multiply the latents by, where it is one number


@dataclass(frozen=True)
class Converted:
    """An official state dict in this house's words."""

    group: str  # the config group of its component
    component: str
    keywords: Mapping[str, Any]  # the constructor's
    state: Mapping[str, Tensor]


def families() -> list[ModuleType]:
    """The modules beside this one: each has `ENTRIES` by name and `convert(name, state, settings)`."""
    return [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]


def catalogue() -> dict[str, Entry]:
    """Every official model, by name."""
    return {name: entry for family in families() for name, entry in family.ENTRIES.items()}


def entry(name: str) -> Entry:
    """One official model. Raises ValueError for an unknown name."""
    known = catalogue()
    if name not in known:
        raise ValueError(f"There is no official model named {name!r}. Known: {', '.join(sorted(known))}.")
    return known[name]


def convert(name: str, state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Converted:
    """An official state dict under our names; `settings`: what a config.json beside it says.

    Raises ValueError for tensors that are missing or not known, and for settings that contradict them.
    """
    entry(name)
    family = next(family for family in families() if name in family.ENTRIES)
    return family.convert(name, state, settings)


def refuse(name: str, entry: Entry, *, missing: Set[str], unknown: Set[str]) -> None:
    """Raises ValueError naming the first tensors of a checkpoint that are missing or unknown, if any."""
    faults = [(what, sorted(keys)) for what, keys in (("missing", missing), ("unknown", unknown)) if keys]
    told = [f"{what} {', '.join(keys[:3])}{', ...' if keys[3:] else ''}" for what, keys in faults]
    if told:
        raise ValueError(f"These tensors are no {name}: {'; '.join(told)}. Expected {entry.source}'s checkpoint.")


def count_blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many different blocks stand under a prefix; at least one is expected."""
    numbers = {key.removeprefix(f"{prefix}.").split(".")[0] for key in state if key.startswith(f"{prefix}.")}
    return max(1, sum(number.isdecimal() for number in numbers))


def shape(state: Mapping[str, Tensor], key: str, dimensions: int) -> tuple[int, ...]:
    """The shape of a tensor. Raises ValueError unless it has this many dimensions."""
    found = tuple(state[key].shape)
    if len(found) != dimensions:
        raise ValueError(f"{key} has the shape {found}. Expected {dimensions} dimensions.")
    return found
