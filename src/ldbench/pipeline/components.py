"""Metrics, extractors and teachers by their names in the config groups: built, and identified by digest."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ldbench.artifacts import store, weights
from ldbench.config.components import import_target, instantiate, required_parameters
from ldbench.config.compose import Registry, plain
from ldbench.pipeline import feature_networks
from ldbench.pipeline.recipe import with_digests
from ldbench.results.protocol import Protocol


def component_config(group: str, name: str, protocol: Protocol, registry: Registry = Registry()) -> dict[str, Any]:
    """Returns the yaml of a metric, a distance or an extractor, with the weights that the protocol gives it.

    Raises ValueError for an unknown one.
    """
    composed = registry.option(group, name)
    given = protocol.weights.get(name) if group in ("metric", "extractor") else None
    if given is not None:
        if "weights" not in composed:
            raise ValueError(f"protocol.weights.{name} has nothing to do: {name} takes no weights.")
        composed.weights.source = given
    if "weights" in composed and OmegaConf.is_missing(composed.weights, "source"):
        raise ValueError(f"{group}={name} needs weights that you give it: protocol.weights.{name}=PATH.")
    return plain(composed)


def weights_path(name: str, node: Mapping[str, Any]) -> Path | None:
    """Returns the file of a component's weights; None for one without weights.

    Raises ValueError, with what to do, for a file that cannot be found or downloaded.
    """
    if "weights" not in node:
        return None
    try:
        return weights.locate(node["weights"]["source"])
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{error}\n{name} needs it: say protocol.weights.{name}=PATH, or choose a protocol without it, such as "
            "protocol=default."
        ) from error


def build_metric(group: str, name: str, protocol: Protocol, registry: Registry = Registry()) -> Any:
    """A metric or a distance by its name in the config group. Raises ValueError for an unknown one."""
    node = component_config(group, name, protocol, registry)
    return instantiate(node, **weights_checksum(name, node))


def build_extractor(name: str, cfg: DictConfig, protocol: Protocol, registry: Registry = Registry()) -> Any:
    """An extractor by its name in the config group; a network that it stands on is trained on first use."""
    node = component_config("extractor", name, protocol, registry)
    network = {"network": feature_networks.get_network(node["network"], cfg, registry)} if "network" in node else {}
    return instantiate({**node, **network}, **weights_checksum(name, node))


def extractor_key(name: str, cfg: DictConfig, protocol: Protocol, registry: Registry = Registry()) -> str:
    """The sha256 of all that an extractor's features depend on, with the weights of a network that was trained here.

    The digest in a protocol's hash is of the recipe; `results.extractor_differences` finds numbers of several networks.
    """
    node = component_config("extractor", name, protocol, registry)
    digest = component_digest("extractor", name, protocol, registry)
    if "network" not in node:
        return digest
    network = feature_networks.network_key(node["network"], cfg, registry)
    return store.digest({"extractor": digest, "network": network})


def build_teacher(name: str, cfg: DictConfig, registry: Registry = Registry()) -> Any:
    """A teacher by its name in the config group; a network that it stands on is trained on first use."""
    node = registry.option("teacher", name)
    network = {"network": feature_networks.get_network(node.network, cfg, registry)} if "network" in node else {}
    return instantiate({**plain(node), **network})


def with_teacher(settings: Mapping[str, Any], cfg: DictConfig, registry: Registry = Registry()) -> dict[str, Any]:
    """Returns a job's settings, in which the teacher is given with a digest of all that its features depend on: of a
    network that is trained here its weights too, so that it is trained on first use.
    """
    if settings.get("teacher") is None:
        return dict(settings)
    node = plain(registry.option("teacher", settings["teacher"]))
    described = {
        **registry.with_component_names(with_digests(node, registry)),
        "revision": import_target(node["_target_"]).revision,
    }
    if "network" in node:
        described["network"] = feature_networks.network_key(node["network"], cfg, registry)
    return {**settings, "teacher": {"name": settings["teacher"], "digest": store.digest(described)}}


def weights_checksum(name: str, node: Mapping[str, Any]) -> dict[str, str]:
    """The sha256 of a component's weights file, where its constructor asks for it."""
    file = weights_path(name, node)
    return (
        {"sha256": store.file_digest(file)}
        if file is not None and "sha256" in required_parameters(node["_target_"])
        else {}
    )


def component_digest(group: str, name: str, protocol: Protocol, registry: Registry = Registry()) -> str:
    """Returns the sha256 of all that a metric's or an extractor's numbers depend on; files count by content."""
    node = component_config(group, name, protocol, registry)
    weights_path(name, node)
    revision = getattr(import_target(node["_target_"]), "revision", 1)
    return store.digest({**registry.with_component_names(with_digests(node, registry)), "revision": revision})
