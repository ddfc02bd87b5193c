"""Composition for tests, which ask for hundreds of configs: Hydra composes a choice of parts once, and plain values are set on it as it sets them.

tests/config/test_compose.py holds what comes out against Hydra's own composition.
"""

import re
from collections.abc import Callable, Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ldbench.config.compose import Registry, cached

VALUE = re.compile(r"(?!hydra\.)[a-z]\w*(\.\w+)+=")  # a word that changes a value: groups have no dot in their names
Compose = Callable[[Registry, str | None, Sequence[str]], DictConfig]
HYDRAS: Compose = Registry.compose_from_files


def key_of(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]


def apart(words: Sequence[str]) -> bool:
    """Whether the plain values among some words touch nothing that another word adds or deletes, so that their order does not matter."""
    values = [key_of(word) + "." for word in words if VALUE.match(word)]
    others = [key_of(word) + "." for word in words if not VALUE.match(word) and word[0] in "+~" and "@" not in word]
    return not any(value.startswith(other) or other.startswith(value) for value in values for other in others)


def by_parts(registry: Registry, config_name: str | None, words: Sequence[str]) -> DictConfig:
    """Gives what Hydra's composition does, sooner; what cannot be set here is left to it, mistakes too."""
    values, parts = [[word for word in words if bool(VALUE.match(word)) == is_value] for is_value in (True, False)]
    if not values or not apart(words):
        return HYDRAS(registry, config_name, words)
    key = ("parts of", config_name, *parts, "of", registry.stamps())
    try:
        cfg = cached(key, lambda: HYDRAS(registry, config_name, parts))
        for override in OverridesParser.create().parse_overrides(values):
            if override.is_sweep_override():
                raise ValueError(f"{override.input_line} has several values.")
            OmegaConf.update(cfg, override.key_or_group, override.value(), merge=True)
    except (HydraException, OmegaConfBaseException, ValueError):
        return HYDRAS(registry, config_name, words)
    return cfg
