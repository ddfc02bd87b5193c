"""Prepares overrides for Hydra: the home folder in paths, and several options of one group.

Hydra's grammar has no `~` in values, and shells leave it in data.root=~/images. Several options of a group it would
merge into one node, of which the last one's class is built with the settings of all: loggers are put side by side,
callbacks are merged, and others are refused.
"""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

LIST = re.compile(r"(?P<key>[\w/]+)=\[(?P<names>[^\[\]]*)\]")
HOME = re.compile(r"~[\w.-]*(/.*)?")
PLAIN = re.compile(r"[\w/.@-]+")  # what Hydra reads without quotes
MERGED = ("callbacks",)  # groups whose options are mappings of named parts
FIRST = "wandb"  # of several loggers the one under `logger`, whose settings are given on the command line


def prepare_overrides(overrides: Iterable[str], conf: Path) -> list[str]:
    """The overrides, with `~` expanded, and with the second and further loggers under `loggers`, by name.

    Raises ValueError for several options of another group, such as experiments=[a,b].
    """
    return [part for override in overrides for part in expand_options(expand_home(override), conf)]


def expand_home(override: str) -> str:
    """An override whose value is a path in the home folder, with the whole path, in quotes for Hydra."""
    key, _, value = override.partition("=")
    if override.startswith("-") or not HOME.fullmatch(value):
        return override
    path = os.path.expanduser(value)
    return f"{key}={path}" if PLAIN.fullmatch(path) else f"{key}={quoted(path)}"


def quoted(value: str) -> str:
    """A value as a string in Hydra's grammar."""
    text = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def expand_options(override: str, conf: Path) -> Sequence[str]:
    """One override as those that Hydra composes."""
    match = LIST.fullmatch(override)
    if match is None or not (conf / match["key"]).is_dir() or match["key"] in MERGED:
        return [override]
    key, names = match["key"], [name.strip(" '\"") for name in match["names"].split(",") if name.strip()]
    if key == "logger":
        names = [name for name in dict.fromkeys(names) if name != "none"]
        first = FIRST if FIRST in names else (names or ["none"])[0]
        return [f"logger={first}", *(f"+logger@loggers.{name}={name}" for name in names if name != first)]
    if len(names) == 1:
        return [f"{key}={names[0]}"]
    raise ValueError(
        f"{override} chooses several options of {key}, and one at a time is used. Choose one"
        + (
            ", or write an experiment whose defaults name both."
            if key == "experiments"
            else f"; for a sweep over them, leave out the brackets: -m {key}={','.join(names)}"
        )
    )
