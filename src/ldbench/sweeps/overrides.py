"""Splits a command line into overrides with one value and overrides with several.

Hydra composes a sweep's own config without the latter, and so refuses `generator.max_steps=9` together with
`generator=dit,sit`: that config would have no generator. Here it gets the first value of each; the sweeper gets the
original overrides.
"""

from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from ldbench.config.compose import Registry, conf_dir

FLAGS = ("-m", "--multirun", "hydra.mode=MULTIRUN")


def split_sweep_overrides(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """All overrides with one value each (the first), and the original form of those with several values.

    Without a sweep all overrides stay unchanged, for Hydra to refuse.
    """
    if not is_sweep(overrides):
        return list(overrides), []
    first = [first_value(override) for override in overrides]
    return first, [override for override, other in zip(overrides, first, strict=True) if override != other]


def is_sweep(overrides: Sequence[str]) -> bool:
    """Whether a command line requests a sweep, by a flag or by an experiment that is a sweep."""
    if set(FLAGS) & set(overrides):
        return True
    names = [override.partition("=")[2] for override in overrides if override.startswith("experiments=")]
    known = Registry().options("experiments") if names else {}
    return any((known.get(name, {}).get("hydra") or {}).get("mode") == "MULTIRUN" for name in names)


def first_value(text: str) -> str:
    """The override with the first of its values that is a known option, if it has a finite list of values."""
    if text.startswith("-") or "=" not in text:
        return text
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException:  # Hydra reports the mistake
        return text
    if not (override.is_sweep_override() and override.is_discrete_sweep()) or override.is_hydra_override():
        return text
    try:
        values = list(override.sweep_string_iterator())
    except (HydraException, AssertionError):  # a glob needs the config tree
        return text
    key = override.get_key_element()
    known = Registry().options(key) if (conf_dir() / key).is_dir() else values
    chosen = next((value for value in values if value in known), values[0])  # mistyped names are reported per point
    return f"{key}={chosen}"
