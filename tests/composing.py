"""Fast composition for tests: Hydra composes each choice of groups once, and plain values are set on a copy of it.

Hydra itself reads each file once, in `reading_once`.

tests/config/test_compose.py holds what comes out against Hydra's own composition.
"""

import os
import pickle
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from hydra._internal import defaults_list
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, _utils, base
from omegaconf.errors import OmegaConfBaseException

from ldbench.config.compose import Registry, cached

VALUE = re.compile(r"(?!hydra\.)[a-z]\w*(\.\w+)+=")  # an override of a value: names of groups have no dot
Compose = Callable[[Registry, str | None, Sequence[str]], DictConfig]
HYDRAS: Compose = Registry.compose_from_files


def key_of(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def are_independent(overrides: Sequence[str]) -> bool:
    """Whether the plain values touch no key that another override adds or deletes: their order is irrelevant."""
    values = [key_of(override) + "." for override in overrides if VALUE.match(override)]
    others = [
        key_of(override) + "."
        for override in overrides
        if not VALUE.match(override) and override[0] in "+~" and "@" not in override
    ]
    return not any(value.startswith(other) or other.startswith(value) for value in values for other in others)


def by_parts(registry: Registry, config_name: str | None, overrides: Sequence[str]) -> DictConfig:
    """Gives what Hydra's composition does, sooner; what cannot be set here is left to it, mistakes too."""
    values, parts = [
        [override for override in overrides if bool(VALUE.match(override)) == is_value] for is_value in (True, False)
    ]
    if not values or not are_independent(overrides):
        return HYDRAS(registry, config_name, overrides)
    key = ("parts of", config_name, *parts, "of", registry.stamps())
    try:
        cfg = cached(key, lambda: HYDRAS(registry, config_name, parts))
        for override in OverridesParser.create().parse_overrides(values):
            if override.is_sweep_override():
                raise ValueError(f"{override.input_line} has several values.")
            OmegaConf.update(cfg, override.key_or_group, override.value(), merge=True)
    except (HydraException, OmegaConfBaseException, ValueError):
        return HYDRAS(registry, config_name, overrides)
    return cfg


Replacement = tuple[Any, str, Any]  # whose, its name, what stands there
CHOICES = defaults_list._create_interpolation_map
PLAIN: list[Replacement] = []  # what `reading_once` has replaced


def reading_files_once(kind: str, stamp: Callable[[Any, str], Any]) -> Replacement:
    """A kind of Hydra's sources that parses a yaml again only where its stamp is another."""
    owner = SourcesRegistry.instance().resolve(kind)
    anew, known = owner.load_config, {}

    def read(self: Any, config_path: str) -> Any:
        name = self._normalize_file_name(config_path)
        key = (self.path, self.provider, name, stamp(self, name))
        if key not in known:
            known[key] = pickle.dumps(anew(self, config_path), protocol=pickle.HIGHEST_PROTOCOL)
        return pickle.loads(known[key])

    return owner, "load_config", read


def stamp_of(source: Any, name: str) -> tuple[int, int] | None:
    """When a file was touched last, and its size."""
    try:
        stamp = os.stat(os.path.join(source.path, name))
    except OSError:
        return None
    return stamp.st_mtime_ns, stamp.st_size


def choices(overrides: Any, defaults: Any, self_added: bool) -> Any:
    """What interpolations in a list of defaults stand for; nobody asks where there are none."""
    return CHOICES(overrides, defaults, self_added) if any(default.is_interpolation() for default in defaults) else None


@contextmanager
def reading_once() -> Iterator[None]:
    """Within it Hydra parses no yaml, and OmegaConf no interpolation, that it knows."""
    Plugins.instance()  # registers the sources
    parse = lru_cache(maxsize=4096)(base.parse)
    sooner: list[Replacement] = [
        reading_files_once("file", stamp_of),
        reading_files_once("pkg", lambda source, name: None),
        (defaults_list, "_create_interpolation_map", choices),
        (base, "parse", parse),
        (_utils, "parse", parse),
    ]
    PLAIN[:] = [(owner, name, getattr(owner, name)) for owner, name, _ in sooner]
    with replaced(sooner):
        yield


@contextmanager
def plainly() -> Iterator[None]:
    """Within it Hydra does all that it does for a user."""
    with replaced(PLAIN):
        yield


@contextmanager
def replaced(replacements: Sequence[Replacement]) -> Iterator[None]:
    """Within it other things stand in some places."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in replacements]
    for owner, name, other in replacements:
        setattr(owner, name, other)
    try:
        yield
    finally:
        for owner, name, other in before:
            setattr(owner, name, other)
