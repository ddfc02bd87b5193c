"""Fast composition for tests: Hydra composes each choice of groups once, and plain values are set on a copy of it.

tests/config/test_compose.py holds what comes out against Hydra's own composition.
"""

import re
from collections.abc import Callable, Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
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
