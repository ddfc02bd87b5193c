"""Components: the objects that config nodes with `_target_` describe."""

import importlib
import inspect
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from ldbench.config.error_messages import error_message
from ldbench.config.value_types import expected, fits, is_plain, plain_branches, shown, validate_value


def instantiate(node: Any, **facts: Any) -> Any:
    """Builds the object that a node with `_target_` describes; `facts` are keywords that are known only at run time.

    Raises ValueError with a sentence: what the component itself refused, or which keyword it does not know.
    """
    validate_types(node, given=tuple(facts))
    try:
        if not facts:
            return hydra.utils.instantiate(node, _convert_="all")
        # Hydra would copy run-time objects, and turn some into dicts
        return hydra.utils.instantiate(node, _convert_="all", _partial_=True)(**facts)
    except InstantiationException as error:
        if isinstance(error.__cause__, ValueError | OSError):
            raise error.__cause__ from error
        owner = re.search(r"full_key: (\S+)", str(error))
        message = _unknown_keyword(error, owner.group(1) if owner else node["_target_"])
        raise ValueError(message or error_message(error)) from error
    except TypeError as error:
        owner_key = node._get_full_key(None) if isinstance(node, DictConfig) else ""
        message = _unknown_keyword(error, owner_key or node["_target_"])
        raise ValueError(message or f"{node['_target_']}: {error}") from error


def validate_types(node: Any, key: str | None = None, *, given: Collection[str] = ()) -> None:
    """Raises ValueError where a node, or a node inside it, has a value of another type than the component's signature
    asks for.

    `key`: the config key of the node, where it does not know its own; `given`: arguments that it does not decide.
    """
    if not isinstance(node, Mapping | DictConfig):
        return
    own = str(node.get("_target_", "")).startswith("ldbench.")
    signature = inspect.signature(import_target(node["_target_"])).parameters if own else {}
    for name in node:
        if isinstance(node, DictConfig) and OmegaConf.is_missing(node, name):
            continue
        value = node[name]
        full_key = node._get_full_key(name) if isinstance(node, DictConfig) else f"{key or node.get('_target_')}.{name}"
        if name in given:
            continue
        if name in signature and signature[name].annotation is not inspect.Parameter.empty:
            validate_annotated(full_key, value, signature[name].annotation)
        validate_types(value, full_key)


def validate_annotated(key: str, value: Any, annotation: Any) -> None:
    """Raises ValueError for a value that is not of a type: a plain one, or a component, which is a mapping."""
    if is_plain(annotation):
        held = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        validate_value(key, held, annotation)
    elif value is None or isinstance(value, bool | int | float | str):
        others = plain_branches(annotation)
        if not any(fits(value, other) for other in others):
            names = " or ".join(["a component, which is a mapping with _target_", *map(expected, others)])
            raise ValueError(f"{key} must be {names}, got {shown(value)}.")


def import_target(target: str) -> Any:
    """Returns what a dotted path of our own config names."""
    module, _, attribute = target.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def parameter_names(target: str) -> Sequence[str]:
    """Returns the names of the arguments that a dotted path of our own config takes."""
    return list(inspect.signature(import_target(target)).parameters)


def required_parameters(target: str) -> Sequence[str]:
    """Returns the names of those of its arguments that have no default."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(import_target(target)).parameters.items()
    return [name for name, given in parameters if given.default is inspect.Parameter.empty and given.kind in kinds]


def _unknown_keyword(error: Exception, owner: str) -> str | None:
    keyword = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    return f"There is no config key {owner}.{keyword.group(1)}." if keyword else None
