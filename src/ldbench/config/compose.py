"""The config tree: where it is, how Hydra composes it, and which options and components its groups have."""

import os
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, flag_override

from ldbench.config.command_line import prepare_overrides
from ldbench.config.components import import_target
from ldbench.config.error_messages import did_you_mean, error_message
from ldbench.io import safe_yaml

COMPONENT_GROUPS = (
    *("tokenizer", "backbone", "loss", "teacher", "discriminator", "mask", "network"),
    *("interpolant", "times", "objective", "sampler", "guidance"),
    *("data", "optimizer", "metric", "extractor", "distribution", "job", "callbacks", "logger", "budget"),
)
# A generator is assembled from components: it has one class, and its group holds macros over the parts.
ASSEMBLED = {"generator": "ldbench.core.generator.Generator"}
HAS_DEFAULTS = re.compile(r"^(# *@package|defaults *:)", re.MULTILINE)  # in a yaml that Hydra has to compose
_CACHE: dict[
    Any, bytes
] = {}  # what was read or composed, pickled; every key holds the stamps of the files it came from


def conf_dir() -> Path:
    """Returns the folder of the config tree: inside the installed package, or beside `src` in a checkout."""
    installed = Path(__file__).parents[1] / "conf"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "conf"


def cached(key: Any, build: Callable[[], Any]) -> Any:
    """Returns a copy of what `build` returned the first time it was called for this key."""
    if key not in _CACHE:
        _CACHE[key] = pickle.dumps(build(), protocol=pickle.HIGHEST_PROTOCOL)
    return pickle.loads(_CACHE[key])


@dataclass(frozen=True)
class Registry:
    """The options of every config group: ours, and those in the config folders of other packages.

    `searchpath` lists these folders, as paths or as Hydra writes them (`file://DIR`). Where two folders have an option
    of one name, ours counts, then the earlier one, as in Hydra. Files are read again only after they changed.
    """

    searchpath: tuple[str, ...] = ()
    data: Mapping[str, Any] | None = field(default=None, compare=False)  # of the run, whose networks lie where they do

    @classmethod
    def from_sources(cls, sources: Sequence[Any]) -> "Registry":
        """Returns the registry of a composed config, from its `hydra.runtime.config_sources`."""
        return cls(tuple(s.path for s in sources if s.provider.startswith("hydra.searchpath in")))

    def with_data(self, cfg: DictConfig) -> "Registry":
        """Returns the registry of a run on the data of a composed config."""
        node = cfg.get("data")
        known = OmegaConf.to_container(node) if OmegaConf.is_config(node) else None
        return replace(self, data=cast("Mapping[str, Any] | None", known))

    def compose(self, config_name: str | None, overrides: Sequence[str] = ()) -> DictConfig:
        """Returns the composed config without running anything; with no name, the config of the overrides alone.

        Raises ValueError, with what to change, for overrides that do not fit.
        """
        overrides = prepare_overrides(overrides, conf_dir())
        key = ("composed", config_name, *overrides, "of", self.stamps())
        return cached(key, lambda: self.compose_from_files(config_name, overrides))

    def compose_from_files(self, config_name: str | None, overrides: Sequence[str]) -> DictConfig:
        """See `compose`: through Hydra, without the cache."""
        self.validate_folders()
        sources = ",".join(
            folder if "://" in folder else f"file://{Path(folder).absolute()}" for folder in self.searchpath
        )
        extra = [f"hydra.searchpath=[{sources}]"] if sources else []
        applications = GlobalHydra.instance().hydra  # of the application that calls this, if it is one of Hydra
        GlobalHydra.instance().clear()
        try:
            with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3", job_name=config_name or "option"):
                composed = hydra.compose(config_name, overrides=[*overrides, *extra], return_hydra_config=True)
        except (HydraException, ValueError) as error:  # Hydra raises either
            raise ValueError(error_message(error, config_name, overrides, self.compose)) from error
        finally:
            GlobalHydra.instance().hydra = applications
        self.validate_protocol(composed.hydra.runtime.choices)
        return drop_hydra(composed)

    def option(self, group: str, name: str) -> DictConfig:
        """Returns the composed node of one option, with its own defaults. Raises ValueError for an unknown name."""
        self.validate_option(group, name)
        if HAS_DEFAULTS.search(self.files(group)[name].read_text(encoding="utf-8")):
            return self.compose(None, [f"+{group}={name}"])[group]
        # the node that Hydra would compose, in less time
        return OmegaConf.create({group: self.options(group)[name]}, flags={"struct": True})[group]

    def options(self, group: str) -> dict[str, dict[str, Any]]:
        """Returns the raw yaml of every option in a group, by name, without resolving its defaults."""
        self.validate_folders()
        return {name: _read_yaml(path) for name, path in self.files(group).items()}

    def files(self, group: str) -> dict[str, Path]:
        """Returns the yaml file of every option in a group, by name."""
        found: dict[str, Path] = {}
        for folder in self.folders():
            for path in sorted((folder / group).glob("*.yaml")):
                found.setdefault(path.stem, path)
        return found

    def folders(self) -> list[Path]:
        """Returns the config folders, ours first."""
        return [conf_dir(), *(Path(entry.removeprefix("file://")) for entry in self.searchpath)]

    def targets(self, group: str) -> dict[str, str]:
        """Returns the dotted path of what every option in a group builds, by name; variants of another option have
        none.
        """
        nodes = {name: raw.get("model", raw) for name, raw in self.options(group).items()}
        return {name: node["_target_"] for name, node in nodes.items() if isinstance(node, dict) and "_target_" in node}

    def component(self, group: str, name: str) -> Any:
        """Returns the class that a component name stands for.

        Raises ValueError for a name outside the config groups: no other code is ever imported.
        """
        if group == name and group in ASSEMBLED:
            return import_target(ASSEMBLED[group])
        if group not in COMPONENT_GROUPS:  # an artifact may come from anybody: its keywords open no other folder
            raise ValueError(f"There is no config group {group!r}. Known: {', '.join(COMPONENT_GROUPS)}.")
        known = self.targets(group)
        if name not in known:
            raise ValueError(
                f"There is no {group} named {name[:100]!r} here. Known: {', '.join(sorted(known))}. "
                "If it comes from another package, pass that package's config folder as `searchpath`."
            )
        return import_target(known[name])

    def component_name(self, group: str, target: str) -> str:
        """Returns the name under which a group knows a dotted path.

        Raises ValueError for one that stands in no yaml of the group.
        """
        for name, known in self.targets(group).items():
            if known == target:
                return name
        raise ValueError(
            f"{target} stands in no yaml of the config group {group!r}. A component is one file and one yaml: "
            f"add {group}/<name>.yaml."
        )

    def with_component_names(self, node: Any) -> Any:
        """Returns a plain copy of a config node in which `component: <name>` stands in place of every `_target_`."""
        by_target = {target: name for group in COMPONENT_GROUPS for name, target in self.targets(group).items()}

        def rename(value: Any) -> Any:
            if isinstance(value, Mapping):
                hidden = ("_target_", "_partial_", "_convert_")
                settings = {str(key): rename(entry) for key, entry in value.items() if key not in hidden}
                if "_target_" not in value:
                    return settings
                return {"component": by_target.get(value["_target_"], value["_target_"]), **settings}
            return [rename(entry) for entry in value] if isinstance(value, list | tuple) else value

        return rename(plain(node))

    def validate_option(self, group: str, name: str) -> None:
        """Raises ValueError unless a group has an option of this name."""
        known = self.options(group)
        if name not in known:
            options = ", ".join(sorted(known))
            raise ValueError(f"There is no {group} named {name!r}.{did_you_mean(name, list(known))} Known: {options}.")

    def validate_protocol(self, choices: Mapping[str, Any]) -> None:
        """Raises ValueError for a protocol that does not exist.

        The name of data that have no protocol is fine: the default config asks for it as an optional choice.
        """
        given = choices.get("protocol")
        if given is not None and given != choices.get("data"):
            known = self.options("protocol")
            if given not in known:
                hint = did_you_mean(given, list(known))
                raise ValueError(f"There is no protocol={given}.{hint}\nAvailable: {', '.join(sorted(known))}")

    def validate_folders(self) -> None:
        """Raises ValueError, naming the file, for a yaml on the search path that is malformed or too large."""
        for folder in self.folders()[1:]:
            for stamp in folder_stamps(str(folder)):
                cached(("sound", stamp), partial(safe_yaml.validate_file, Path(stamp[0])))

    def stamps(self) -> tuple[Any, ...]:
        """Returns the path, the time of the last change and the length of every yaml in the tree."""
        return tuple(stamp for folder in self.folders() for stamp in folder_stamps(str(folder)))


def drop_hydra(composed: DictConfig) -> DictConfig:
    """Returns a composed config without Hydra's own part."""
    with flag_override(composed, ["struct", "readonly"], [False, False]):
        del composed["hydra"]
    return composed


def plain(node: Any) -> Any:
    """Returns a resolved copy of a config node in plain dicts and lists; anything else as it is."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def cli_overrides() -> list[str]:
    """Returns the overrides on the command line of the running entry point; an empty list outside of one."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def folder_stamps(folder: str) -> list[tuple[str, int, int]]:
    """Returns the path, the time of the last change and the length of every yaml below a folder, links followed."""
    stamps: list[tuple[str, int, int]] = []
    if "://" in folder or not os.path.isdir(folder):  # Hydra reads packages, and skips what does not exist
        return stamps
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.endswith(".yaml"):
            stat = entry.stat()
            stamps.append((entry.path, stat.st_mtime_ns, stat.st_size))
        elif entry.is_dir():
            stamps += folder_stamps(entry.path)
    return stamps


def _stamp(path: Path) -> tuple[str, int, int]:
    stat = path.stat()
    return str(path), stat.st_mtime_ns, stat.st_size


def _read_yaml(path: Path) -> dict[str, Any]:
    def read() -> dict[str, Any]:
        raw = OmegaConf.to_container(OmegaConf.load(path))
        return cast("dict[str, Any]", raw) if isinstance(raw, dict) else {}

    return cached(("raw", _stamp(path)), read)
