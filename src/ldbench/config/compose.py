"""Where the config tree is, how it is composed, and how names become components. The door to Hydra."""

import copy
import difflib
import errno
import importlib
import inspect
import pickle
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException, InstantiationException, MissingConfigException
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from ldbench.io import safe_yaml

TYPES = {
    **{
        int: (int, "a whole number"),
        float: (int | float, "a number"),
        bool: (bool, "true or false"),
        str: (str, "a word"),
    },
    **{int | None: (int | None, "a whole number or null"), float | None: (int | float | None, "a number or null")},
    str | None: (str | None, "a word or null"),
}
COMPONENT_GROUPS = (
    *("tokenizer", "backbone", "loss", "teacher", "discriminator", "mask", "network"),
    *("interpolant", "times", "objective", "sampler", "guidance"),
    *("data", "optimizer", "metric", "extractor", "distribution", "job", "callbacks", "logger", "budget"),
)
BUILT_ON = re.compile(r"^(# *@package|defaults *:)", re.MULTILINE)  # in a yaml that others have a part in
WHOLES = {
    "generator": "ldbench.core.generator.Generator"
}  # put together of components: one class each, and its group holds macros over the parts


def conf_dir() -> Path:
    """The folder of the config tree: inside the installed package, or beside `src` in a checkout."""
    installed = Path(__file__).parents[1] / "conf"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "conf"


REMEMBERED: ContextVar[dict[Any, bytes] | None] = ContextVar(
    "REMEMBERED", default=None
)  # what was read of a tree that does not change, pickled


@contextmanager
def unchanging() -> Iterator[None]:
    """Within it the config tree does not change: what is composed or read again is not read from files again."""
    token = REMEMBERED.set({})
    try:
        yield
    finally:
        REMEMBERED.reset(token)


def once(key: Any, read: Callable[[], Any]) -> Any:
    """What `read` gives; a copy of what it gave before under this key, where the tree does not change."""
    known = REMEMBERED.get()
    if known is None:
        return read()
    if key not in known:
        known[key] = pickle.dumps(read(), protocol=pickle.HIGHEST_PROTOCOL)
    return pickle.loads(known[key])


def compose(config_name: str | None, overrides: Sequence[str] = (), *, searchpath: Sequence[str] = ()) -> DictConfig:
    """The composed config, without running anything; None: of the overrides alone. Raises ValueError with a sentence for those that do not fit."""
    return once(
        (str(conf_dir()), config_name, *overrides, "of", *searchpath),
        lambda: composed_anew(config_name, overrides, searchpath),
    )


def composed_anew(config_name: str | None, overrides: Sequence[str], searchpath: Sequence[str]) -> DictConfig:
    """See `compose`: from the files of the config tree."""
    GlobalHydra.instance().clear()
    check_folders(searchpath)
    extra = [f"hydra.searchpath=[{','.join(as_source(folder) for folder in searchpath)}]"] if searchpath else []
    with hydra.initialize_config_dir(config_dir=str(conf_dir()), version_base="1.3", job_name=config_name or "option"):
        try:
            composed = hydra.compose(config_name, overrides=[*overrides, *extra], return_hydra_config=True)
        except (HydraException, ValueError) as error:  # Hydra raises either for what does not fit
            raise ValueError(sentence(error, config_name, overrides)) from error
    check_protocol(composed.hydra.runtime.choices, searchpath)
    return without_hydra(composed)


def option(group: str, name: str, searchpath: Sequence[str] = ()) -> DictConfig:
    """The composed node of one option of a group, with its own defaults. Raises ValueError for a name that the group does not have."""
    require(group, name, searchpath)
    if BUILT_ON.search(files(group, searchpath)[name].read_text()):
        return compose(None, [f"+{group}={name}"], searchpath=searchpath)[group]
    return OmegaConf.create({group: options(group, searchpath)[name]}, flags={"struct": True})[
        group
    ]  # as Hydra would make it, sooner


def require(group: str, name: str, searchpath: Sequence[str] = ()) -> None:
    """Raises ValueError unless a config group knows the name."""
    known = options(group, searchpath)
    if name not in known:
        raise ValueError(
            f"There is no {group} named {name!r}.{nearest(name, list(known))} Known: {', '.join(sorted(known))}."
        )


def check_protocol(choices: Mapping[str, Any], searchpath: Sequence[str] = ()) -> None:
    """Raises ValueError for a protocol that is not there, unless it is merely the name of data without one, which Hydra passes over."""
    given = choices.get("protocol")
    if given is not None and given != choices.get("data"):
        known = options("protocol", searchpath)
        if given not in known:
            raise ValueError(
                f"There is no protocol={given}.{nearest(given, list(known))}\nAvailable: {', '.join(sorted(known))}"
            )


def searchpath_of(sources: Sequence[Any]) -> list[str]:
    """The entries of `hydra.searchpath` among the sources of a composed config."""
    return [source.path for source in sources if source.provider.startswith("hydra.searchpath in")]


def check_folders(searchpath: Sequence[str]) -> None:
    """Raises ValueError, naming the file, for a yaml in these folders that is none, or would fill the memory: Hydra reads them as they come."""
    for entry in searchpath:
        folder = Path(entry.removeprefix("file://"))
        for path in sorted(folder.rglob("*.yaml")) if "://" not in str(folder) and folder.is_dir() else ():
            stamp = path.stat()
            checked_yaml(path, stamp.st_mtime_ns, stamp.st_size)


@lru_cache(maxsize=4096)
def checked_yaml(path: Path, mtime_ns: int, size: int) -> None:
    """Looks at a file once as long as it is not touched. Raises ValueError as `safe_yaml.check`."""
    safe_yaml.check(path)


def without_hydra(composed: DictConfig) -> DictConfig:
    """A composed config without Hydra's own part."""
    with flag_override(composed, ["struct", "readonly"], [False, False]):
        del composed["hydra"]
    return composed


def as_source(folder: str) -> str:
    """A Hydra search path entry of a folder or of an entry."""
    return folder if "://" in folder else f"file://{Path(folder).absolute()}"


def plain(node: Any) -> Any:
    """A resolved copy of a config node in plain dicts and lists; anything else as it is."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def cli_overrides() -> list[str]:
    """The overrides of the command line that an entry point was started with; none where there is no entry point."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def instantiate(node: Any, **facts: Any) -> Any:
    """The object that a node with `_target_` describes; `facts` are what is known only at run time.

    Raises ValueError with a sentence: what the component itself refused, or which keyword it does not know.
    """
    check_types(node)
    try:
        if not facts:
            return hydra.utils.instantiate(node, _convert_="all")
        return hydra.utils.instantiate(node, _convert_="all", _partial_=True)(
            **facts
        )  # Hydra would copy facts, and turn some into dicts
    except InstantiationException as error:
        if isinstance(error.__cause__, ValueError | OSError):
            raise error.__cause__ from error
        owner = re.search(r"full_key: (\S+)", str(error))
        raise ValueError(
            unknown_keyword(error, owner.group(1) if owner else node["_target_"]) or sentence(error)
        ) from error
    except TypeError as error:
        owner = node._get_full_key(None) if isinstance(node, DictConfig) else ""
        raise ValueError(unknown_keyword(error, owner or node["_target_"]) or f"{node['_target_']}: {error}") from error


def unknown_keyword(error: Exception, owner: str) -> str | None:
    """What to say of a keyword that a component does not know, where that is the error."""
    keyword = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    return f"There is no config key {owner}.{keyword.group(1)}." if keyword else None


def check_types(node: Any, place: str | None = None) -> None:
    """Raises ValueError for a number, a word or a truth value in a place where a component's signature asks for another; inside it too.

    `place`: the config key of the node, where it does not know its own.
    """
    if not isinstance(node, Mapping | DictConfig) or not str(node.get("_target_", "")).startswith("ldbench."):
        return
    signature = inspect.signature(find(node["_target_"])).parameters
    for name in node:
        if isinstance(node, DictConfig) and OmegaConf.is_missing(node, name):
            continue
        value, annotation = node[name], signature[name].annotation if name in signature else None
        key = node._get_full_key(name) if isinstance(node, DictConfig) else f"{place or node['_target_']}.{name}"
        if annotation in TYPES:
            fits, what = TYPES[annotation]
            if not isinstance(value, fits) or (isinstance(value, bool) and annotation is not bool):
                raise ValueError(f"{key} must be {what}, got {value!r}.")
        check_types(value, key)


def options(group: str, searchpath: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """The raw yaml of every option in a config group, by name, without its defaults resolved; later folders of `searchpath` add to ours."""
    return once((str(conf_dir()), "options", group, *searchpath), lambda: options_anew(group, searchpath))


def options_anew(group: str, searchpath: Sequence[str]) -> dict[str, dict[str, Any]]:
    """See `options`: from the files of the config tree."""
    check_folders(searchpath)
    stamps = {name: (path, path.stat()) for name, path in files(group, searchpath).items()}
    return {
        name: copy.deepcopy(raw_yaml(path, stamp.st_mtime_ns, stamp.st_size)) for name, (path, stamp) in stamps.items()
    }


def files(group: str, searchpath: Sequence[str] = ()) -> dict[str, Path]:
    """The yaml of every option in a config group, by name; where two folders have one of a name, ours or else the earlier counts, as in Hydra."""
    found: dict[str, Path] = {}
    for folder in (conf_dir(), *(Path(entry.removeprefix("file://")) for entry in searchpath)):
        for path in sorted((folder / group).glob("*.yaml")):
            found.setdefault(path.stem, path)
    return found


@lru_cache(maxsize=4096)
def raw_yaml(path: Path, mtime_ns: int, size: int) -> dict[str, Any]:
    """What a file holds, read once as long as it is not touched."""
    raw = OmegaConf.to_container(OmegaConf.load(path))
    return raw if isinstance(raw, dict) else {}  # type: ignore[return-value]


def targets(group: str, searchpath: Sequence[str] = ()) -> dict[str, str]:
    """The components of a group: option name -> dotted path of what it builds. Variants of another option are not listed."""
    found = {}
    for name, raw in options(group, searchpath).items():
        node = raw.get("model", raw)
        if isinstance(node, dict) and "_target_" in node:
            found[name] = node["_target_"]
    return found


def component(group: str, name: str, searchpath: Sequence[str] = ()) -> Any:
    """The class that a component name stands for. Raises ValueError for a name outside the config groups: no other code is ever imported."""
    if group == name and group in WHOLES:
        return find(WHOLES[group])
    if group not in COMPONENT_GROUPS:  # an artifact may come from anybody: its words open no other folder
        raise ValueError(f"There is no config group {group!r}. Known: {', '.join(COMPONENT_GROUPS)}.")
    known = targets(group, searchpath)
    if name not in known:
        raise ValueError(
            f"There is no {group} named {name[:100]!r} here. Known: {', '.join(sorted(known))}. "
            "If it comes from another package, hand over that package's config folder as `searchpath`."
        )
    return find(known[name])


def find(target: str) -> Any:
    """What a dotted path of our own config names."""
    module, _, attribute = target.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def parameters(target: str) -> Sequence[str]:
    """The names of the arguments that a dotted path of our own config takes."""
    return list(inspect.signature(find(target)).parameters)


def required(target: str) -> Sequence[str]:
    """The names of those of its arguments that have no default."""
    given = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(find(target)).parameters.items()
    return [
        name
        for name, parameter in parameters
        if parameter.default is inspect.Parameter.empty and parameter.kind in given
    ]


def name_of(group: str, target: str, searchpath: Sequence[str] = ()) -> str:
    """The name under which a group knows a dotted path. Raises ValueError when it is in no yaml of the group."""
    for name, known in targets(group, searchpath).items():
        if known == target:
            return name
    raise ValueError(
        f"{target} stands in no yaml of the config group {group!r}. A component is one file and one yaml: add {group}/<name>.yaml."
    )


def named(node: Any, searchpath: Sequence[str] = ()) -> Any:
    """A plain copy of a config node in which components are named: `component: <name>` in place of `_target_`."""
    by_target = {target: name for group in COMPONENT_GROUPS for name, target in targets(group, searchpath).items()}

    def rename(value: Any) -> Any:
        if isinstance(value, Mapping):
            plain = {
                str(key): rename(entry)
                for key, entry in value.items()
                if key not in ("_target_", "_partial_", "_convert_")
            }
            return (
                {"component": by_target.get(value["_target_"], value["_target_"]), **plain}
                if "_target_" in value
                else plain
            )
        return [rename(entry) for entry in value] if isinstance(value, list | tuple) else value

    return rename(OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node)


def sentence(error: Exception, config_name: str | None = None, overrides: Sequence[str] = ()) -> str:
    """What an error says to a user, with the nearest known name where one was mistyped."""
    if isinstance(error, MissingConfigException):
        group, _, given = (error.missing_cfg_file or "").rpartition("/")
        known = list(error.options or [])
        return f"There is no {group}={given}.{nearest(given, known)}\nAvailable: {', '.join(sorted(known))}"
    mistyped = re.search(r"Could not override '([^']+)'", str(error))
    if isinstance(error, ConfigCompositionException) and mistyped:
        key = mistyped.group(1)
        experiment = next((word for word in overrides if word.startswith("experiments=")), None)
        if experiment and not any(word.lstrip("+~").partition("=")[0].partition("@")[0] == key for word in overrides):
            return f"{experiment} sets {key}, which ldbench.{config_name} does not have. The first lines of its file say the command that it is for."
        hint = nearest(key.rpartition(".")[2], neighbours(key, config_name, overrides)) if config_name else ""
        part = f" -p {key.split('.')[0]}" if "." in key else ""
        return f"There is no config key {key}.{hint}\n`python -m ldbench.{config_name or 'train'} --cfg job{part}` prints the keys there are."
    if "Config group override must be a string" in str(error):
        return "null is no option of a config group. Leave a part out with ~, as in ~tokenizer.losses.alignment."
    if isinstance(error, OSError) and error.strerror:
        full = dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "Free some space")
        cures = {**full, errno.EACCES: "Make it writable", errno.EROFS: "Make it writable"}
        cure = f"{cures.get(error.errno or 0, 'Look at it')}, or choose another place with paths.root=DIR."
        return f"{error.filename or 'A file'}: {error.strerror}. {cure} What was done before stays: the same command goes on from there."
    return str(error)


def neighbours(key: str, config_name: str, overrides: Sequence[str]) -> list[str]:
    """The keys that stand where a mistyped one was looked for."""
    rest = [word for word in overrides if "=" in word and not word.startswith("-") and word.partition("=")[0] != key]
    if len(rest) == len(overrides):  # the key is not of the command line: what is composed again fails again
        return []
    try:
        composed, parent = compose(config_name, rest), key.rpartition(".")[0]
        node = OmegaConf.select(composed, parent) if parent else composed
    except (ValueError, OmegaConfBaseException):
        return []
    return [str(name) for name in node] if isinstance(node, DictConfig) else []


def nearest(given: str, known: Sequence[str]) -> str:
    """' Did you mean X?' for the closest known name, or nothing."""
    close = difflib.get_close_matches(given, known, n=1)
    return f" Did you mean {close[0]}?" if close else ""
