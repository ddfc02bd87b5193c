"""Officially released models: one key map for each checkpoint family. Listing them loads no torch."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
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


@dataclass(frozen=True)
class Converted:
    """An official state dict in this house's words."""

    group: str  # the config group of its component
    component: str
    keywords: Mapping[str, Any]  # the constructor's
    state: Mapping[str, Tensor]


def families() -> list[ModuleType]:
    """The modules beside this one: each has `ENTRIES` by name and `convert(name, state)`."""
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


def convert(name: str, state: Mapping[str, Tensor]) -> Converted:
    """An official state dict under our names. Raises ValueError for tensors that are missing or not known."""
    entry(name)
    family = next(family for family in families() if name in family.ENTRIES)
    return family.convert(name, state)
