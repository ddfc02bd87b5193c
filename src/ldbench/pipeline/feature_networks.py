"""Feature networks: trained on first use from a recipe in yaml, and kept as artifacts.

A recipe is an option of the config group `network`. Teachers and extractors hold one under `network`, and whoever
builds them puts the network itself in its place. Machines that round differently train different networks from one
recipe; those that metrics stand on therefore come with the package, where they are large enough for this to matter.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from ldbench.artifacts import store
from ldbench.artifacts.building import building_lock
from ldbench.config.components import instantiate
from ldbench.config.compose import Registry, plain
from ldbench.config.error_messages import did_you_mean
from ldbench.config.installed import packages_of
from ldbench.config.value_types import validate_folder_name
from ldbench.core.interfaces import ImageData
from ldbench.results import records
from ldbench.runtime.process_group import POLL_SECONDS, is_worker_rank
from ldbench.training.optimizer import AdamW

log = logging.getLogger(__name__)

TRAINING_REVISION = 2  # raise when `tasks.features` trains to other numbers
PACKAGED = Path(__file__).parents[1] / "trained_networks"  # artifacts that come with the package
PLACE = ("root", "download")  # where images lie: keys that two configs of the same data may differ in
PART = ("name", "image_size", "subset", "seed")  # which of them, and how they are handed over
KEYS = ("name", "seed", "model", "data", "optimizer", "max_steps", "batch_size", "shift", "threads")


@dataclass(frozen=True)
class NetworkPlan:
    """A feature network's training, before any of it is done."""

    node: Mapping[str, Any]
    data: ImageData
    optimizer: AdamW
    blueprint: store.Blueprint
    recipe: Mapping[str, Any]  # all that its numbers depend on
    digest: str

    @property
    def name(self) -> str:
        """The name of the artifact's folder."""
        return f"{self.node['name']}-{self.digest[:8]}"


def get_network(node: Any, cfg: DictConfig, registry: Registry = Registry()) -> nn.Module:
    """Returns the network that a recipe describes, in eval mode on the CPU; it is trained unless its artifact exists.

    Neither torch's random stream nor its thread count is another one afterwards.
    """
    folder = build_network(node, cfg, registry)
    with torch.random.fork_rng(devices=[]):  # its constructor draws
        return store.load(folder, registry=registry)


def network_key(node: Any, cfg: DictConfig, registry: Registry = Registry()) -> str:
    """The content key of the network that a recipe describes: of recipe and weights. It is trained if it is missing."""
    return store.content_key(build_network(node, cfg, registry))


def build_network(node: Any, cfg: DictConfig, registry: Registry) -> Path:
    """Returns the folder of a recipe's network, which is copied from the package, or trained, unless it exists."""
    planned = plan(node, registry)
    place = Path(cfg.paths.artifacts) / "networks" / planned.name
    with torch.random.fork_rng(devices=[]):
        if store.is_complete(place):
            log.debug("Network %s exists already: %s", planned.name, place)
        elif is_worker_rank():
            while not store.is_complete(place):  # the first process builds it, at this place of the program
                time.sleep(POLL_SECONDS)
        else:
            with building_lock(place):
                if store.is_complete(place):
                    return place
                packaged = PACKAGED / planned.name
                if store.is_complete(packaged) and store.read_manifest(packaged)["digest"] == planned.digest:
                    store.copy(packaged, place)
                    log.info("Network %s comes with the package: %s", planned.name, place)
                else:
                    build(planned, place)
    return place


def network_digest(node: Any, registry: Registry = Registry()) -> str:
    """The digest of the network that a recipe describes, without training it."""
    return plan(node, registry).digest


def plan(node: Any, registry: Registry = Registry()) -> NetworkPlan:
    """What a recipe asks for. Raises ValueError with a sentence for whatever does not fit."""
    node = plain(node)
    validate_recipe(node)
    data = instantiate(placed_as(node["data"], registry.data))
    keywords = {key: value for key, value in node["model"].items() if key != "_target_"}
    component = registry.component_name("network", node["model"]["_target_"])
    blueprint = store.Blueprint(
        "network", component, {**keywords, "image_size": data.image_size, "num_classes": data.num_classes}
    )
    packages = packages_of(node)
    recipe = {
        "kind": "network",
        **({"plugins": packages} if packages else {}),
        "component": component,
        "keywords": dict(blueprint.keywords),
        "training": registry.with_component_names(
            {key: node[key] for key in ("optimizer", "max_steps", "batch_size", "shift")}
        ),
        "seed": node["seed"],
        "data": data.fingerprint,
        "threads": node["threads"],
        "revisions": {
            "model": registry.component("network", component).revision,
            "training": TRAINING_REVISION,
        },
    }
    return NetworkPlan(node, data, instantiate(node["optimizer"]), blueprint, recipe, store.digest(recipe))


def placed_as(node: Mapping[str, Any], given: Mapping[str, Any] | None) -> dict[str, Any]:
    """The images that a network is trained on, where those of the run lie if they are of the same data.

    A network's digest depends on the images, and not on their place.
    """

    def what(data: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in data.items() if key not in PLACE + PART}

    if given is None or what(given) != what(node):
        return dict(node)
    return {**node, **{key: given[key] for key in PLACE if key in given}}


def validate_recipe(node: Mapping[str, Any]) -> None:
    """Raises ValueError for keys that a recipe does not have or lacks, and for numbers out of range."""
    for key in node.keys() - set(KEYS):
        raise ValueError(f"There is no config key network.{key}.{did_you_mean(str(key), KEYS)}")
    for key in KEYS:
        if key not in node:
            raise ValueError(
                f"The recipe of a network lacks {key}. Known networks: "
                f"network={', '.join(Registry().options('network'))}."
            )
    validate_folder_name("network.name", node["name"])
    for key, least in (("seed", 0), ("max_steps", 1), ("batch_size", 2), ("shift", 0), ("threads", 1)):
        if not isinstance(node[key], int) or isinstance(node[key], bool) or node[key] < least:
            raise ValueError(f"network.{key} must be a whole number of at least {least}, got {node[key]!r}.")


def build(planned: NetworkPlan, place: Path) -> None:
    """Trains a network and stores it as an artifact."""
    from ldbench.training import (
        classifier_module,
        fit,  # Lightning takes seconds to load: what exists already need not wait for it
    )

    node, blueprint = planned.node, planned.blueprint
    log.info("Training network %s on %s (%d images).", planned.name, planned.data.name, len(planned.data.train))
    began = time.monotonic()
    with fit.torch_threads(node["threads"]):
        torch.manual_seed(node["seed"])
        network = instantiate(node["model"], image_size=planned.data.image_size, num_classes=planned.data.num_classes)
        numbers = {key: node[key] for key in ("max_steps", "batch_size", "shift", "seed")}
        network = classifier_module.train(network, planned.data.train, optimizer=planned.optimizer, **numbers)
    seconds = time.monotonic() - began
    provenance = {"created": records.now(), "seconds": round(seconds, 1), "environment": records.environment()}
    store.save(network, place, blueprint, recipe=planned.recipe, digest=planned.digest, provenance=provenance)
    log.info("Trained in %.0f s. Network: %s", seconds, place)
