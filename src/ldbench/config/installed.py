"""Plug-ins that were installed as packages: found by their metadata, without importing them.

A package declares the entry point `[project.entry-points."ldbench.plugins"] NAME = "PACKAGE:FOLDER"`, where FOLDER is
its config folder, inside the package. The folder joins the search path, as `hydra.searchpath` does.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any

GROUP = "ldbench.plugins"
KEY = "plugins"  # of the config: null for all that are installed, or a list of names


@dataclass(frozen=True)
class Plugin:
    """An installed plug-in."""

    name: str  # of its entry point
    package: str  # of its distribution, which `pip` installs
    version: str
    module: str  # the Python package that its components are in
    folder: Path  # its config folder, whether it exists or not

    def options(self) -> list[tuple[str, str]]:
        """Its options: pairs of a config group and a name."""
        return [(path.parent.name, path.stem) for path in sorted(self.folder.glob("*/*.yaml"))]

    def __str__(self) -> str:
        return f"{self.name} ({self.package} {self.version})"


def installed() -> tuple[Plugin, ...]:
    """All plug-ins in this environment, by name. Raises ValueError for a declaration that cannot be read."""
    return _found(tuple(sys.path))


@cache
def _found(path: tuple[str, ...]) -> tuple[Plugin, ...]:
    found: dict[str, Plugin] = {}
    for distribution in distributions(path=list(path)):
        for entry in distribution.entry_points:
            if entry.group == GROUP and entry.name not in found:  # the first on the path counts, as for imports
                found[entry.name] = _plugin(entry.name, entry.value, distribution)
    return tuple(found[name] for name in sorted(found))


def _plugin(name: str, value: str, distribution: Distribution) -> Plugin:
    package = distribution.metadata["Name"]
    module, _, folder = value.partition(":")
    top, *inside = module.split(".")
    spec = find_spec(top) if folder else None  # finds a top-level package without importing it
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            f"The package {package} declares the plug-in {name} = {value!r} under {GROUP}. Expected PACKAGE:FOLDER, a "
            f"package that can be imported and its config folder. Mend or uninstall it: pip uninstall {package}."
        )
    root = Path(next(iter(spec.submodule_search_locations)))
    return Plugin(name, package, distribution.version, module, root.joinpath(*inside, *folder.split(".")))


def enabled(overrides: Sequence[str]) -> tuple[Plugin, ...]:
    """The plug-ins that a command line leaves on: all, or those of `plugins=[...]`.

    Raises ValueError for a name that is not installed.
    """
    given = [text.partition("=")[2] for text in overrides if text.lstrip("+").startswith(f"{KEY}=")]
    if not given or given[-1] in ("null", ""):
        return installed()
    names = [name.strip(" '\"") for name in given[-1].strip("[]").split(",") if name.strip()]
    known = {plugin.name: plugin for plugin in installed()}
    for name in names:
        if name not in known:
            others = ", ".join(known) or "none"
            raise ValueError(f"{KEY}={given[-1]} names {name}, and that is not installed. Installed: {others}.")
    return tuple(known[name] for name in dict.fromkeys(names))


def with_folders(searchpath: Sequence[str] = (), overrides: Sequence[str] = ()) -> tuple[str, ...]:
    """A search path followed by the config folders of the enabled plug-ins that exist."""
    folders = [f"file://{plugin.folder}" for plugin in enabled(overrides) if plugin.folder.is_dir()]
    return (*searchpath, *(folder for folder in folders if folder not in searchpath))


def owner(target: str) -> Plugin | None:
    """The plug-in whose package a dotted path is in; None for ours, and for modules that are in none."""
    owners = [plugin for plugin in installed() if target.startswith(f"{plugin.module}.")]
    return max(owners, key=lambda plugin: len(plugin.module), default=None)


def packages_of(*nodes: Any) -> list[str]:
    """The packages of the plug-ins whose components stand in config nodes, sorted."""
    return sorted({plugin.package for node in nodes for target in targets(node) if (plugin := owner(target))})


def targets(node: Any) -> Iterator[str]:
    """Every `_target_` in a config node."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == "_target_":
                yield str(value)
            else:
                yield from targets(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from targets(value)


def describe() -> str:
    """Lines for --help: the plug-ins with their versions and options; empty without any."""
    lines = [
        f"  {plugin}: {', '.join(f'{group}={name}' for group, name in plugin.options()) or 'no options'}"
        for plugin in installed()
    ]
    return "\n".join(["Installed plug-ins (plugins=[] leaves them out):", *lines, ""]) if lines else ""
