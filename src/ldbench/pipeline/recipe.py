"""What a config would train: whether it does, what the digest covers, and how it is described to others."""

from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ldbench.artifacts import store, weights
from ldbench.config.components import import_target
from ldbench.config.compose import Registry, plain
from ldbench.config.installed import packages_of
from ldbench.pipeline import feature_networks


def revisions(node: Mapping[str, Any]) -> dict[str, Any]:
    """The revision of a component that has one, and those of the components inside it."""
    inside = {
        key: revisions(value) for key, value in node.items() if isinstance(value, Mapping) and "_target_" in value
    }
    return {"own": getattr(import_target(node["_target_"]), "revision", None), **inside}


def located(source: str) -> Path:
    """The weights file of a loss term. Raises ValueError with the way to give another, where it cannot be had."""
    try:
        return weights.locate(source)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{error}\nA loss term or its teacher needs it: set its weights.source=PATH, which now is {source}."
        ) from error


def with_digests(node: Any, registry: Registry) -> Any:
    """Returns a plain config node with the content of weights files in place of their path, and digests of networks."""
    if isinstance(node, Mapping):
        if node.get("_target_") == "ldbench.weights.read_weights":
            return {"sha256": store.file_digest(located(node["source"]))}
        described = {key: with_digests(value, registry) for key, value in node.items() if key != "network"}
        return described | (
            {"network": feature_networks.network_digest(node["network"], registry)} if "network" in node else {}
        )
    return [with_digests(value, registry) for value in node] if isinstance(node, list) else node


def model_digest(recipe: Mapping[str, Any]) -> str:
    """The identity of a model: its recipe without seeds, and without what changes numbers by rounding alone.

    Trainings that differ in threads, or in how many processes share them with `trainer.adaptive=global`, are of one
    model. That of a generator holds how its latents were encoded and from which data, and not from which tokenizer,
    which is a model of its own.
    """
    described = {key: value for key, value in recipe.items() if key not in ("seed", "upstream")}
    if "numerics" in recipe:
        numerics = recipe["numerics"]
        local = numerics.get("sharing", {}).get("adaptive") == "local"
        rounding = ("threads",) if local else ("threads", "devices", "sharing")
        described["numerics"] = {key: value for key, value in numerics.items() if key not in rounding}
    if recipe.get("kind") == "generator" and "keywords" in recipe:
        keywords = recipe["keywords"]
        backbone = {key: value for key, value in keywords["backbone"].items() if key != "latent"}
        described["keywords"] = {
            **{key: value for key, value in keywords.items() if key != "normaliser"},
            "backbone": backbone,
        }
        described["data"] = recipe.get("upstream", {}).get("data")
    return store.digest(described)


def plugin_entry(*nodes: Any) -> dict[str, Any]:
    """What a recipe holds of the plug-ins whose components it uses: their packages; nothing without any."""
    packages = packages_of(*map(plain, nodes))
    return {"plugins": packages} if packages else {}


def is_trained(node: DictConfig) -> bool:
    """Whether the tokenizer or generator of this config is trained here, and not an artifact or released weights."""
    return "path" not in list(node) and not OmegaConf.is_missing(node, "weights") and node.weights is None


def public_config(cfg: DictConfig, registry: Registry) -> dict[str, Any]:
    """Returns the config as others may see it: plain, with component names, and of each local path its last part."""
    return {key: _without_folders(value) for key, value in registry.with_component_names(cfg).items() if key != "paths"}


def _without_folders(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_folders(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_folders(entry) for entry in value]
    return _without_folder(value) if isinstance(value, str) else value


def _without_folder(value: str) -> str:
    """The last part of a path on this machine. Names stay, and ids of a hub that are no file here."""
    if PureWindowsPath(value).is_absolute():
        return PureWindowsPath(value).name
    local = value in (".", "..") or value.startswith(("/", "./", "../", "~"))
    if local or ("/" in value and "://" not in value and Path(value).exists()):
        return Path(value).resolve().name
    return value
