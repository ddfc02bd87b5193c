"""The words of a command line that name several values, told apart from those that name one.

Hydra composes a sweep's own config without the former, and so refuses `generator.max_steps=9` beside `generator=dit,sit`: there is no
generator in it. Here that config has the first value of each; the sweeper is handed the words themselves.
"""

from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from ldbench.config.compose import Registry, conf_dir

FLAGS = ("-m", "--multirun", "hydra.mode=MULTIRUN")


def split_sweep_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words with the first value in place of several, and those that had several. Without a sweep all stay, for Hydra to refuse."""
    if not is_sweep(words):
        return list(words), []
    first = [first_value(word) for word in words]
    return first, [word for word, other in zip(words, first, strict=True) if word != other]


def is_sweep(words: Sequence[str]) -> bool:
    """Whether a command line asks for a sweep, by a flag or by an experiment that is one."""
    if set(FLAGS) & set(words):
        return True
    named = [word.partition("=")[2] for word in words if word.startswith("experiments=")]
    known = Registry().options("experiments") if named else {}
    return any((known.get(name, {}).get("hydra") or {}).get("mode") == "MULTIRUN" for name in named)


def first_value(word: str) -> str:
    """The word with the first of its values that is known, where it has several that can be counted."""
    if word.startswith("-") or "=" not in word:
        return word
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException:  # Hydra tells what is wrong with it
        return word
    if not (override.is_sweep_override() and override.is_discrete_sweep()) or override.is_hydra_override():
        return word
    try:
        values = list(override.sweep_string_iterator())
    except (HydraException, AssertionError):  # a glob needs the config tree
        return word
    key = override.get_key_element()
    known = Registry().options(key) if (conf_dir() / key).is_dir() else values
    chosen = next(
        (value for value in values if value in known), values[0]
    )  # a mistyped name is told with its point, beside all other mistakes
    return f"{key}={chosen}"
