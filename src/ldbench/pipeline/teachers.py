"""The frozen teachers of a config's loss terms."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from ldbench.artifacts import store
from ldbench.config.components import instantiate
from ldbench.config.compose import Registry
from ldbench.pipeline import feature_networks


class Teachers:
    """The teachers that loss terms name, each built once and shared by all that name it."""

    def __init__(self, cfg: DictConfig, registry: Registry):
        self.cfg = cfg
        self.registry = registry
        self.known: dict[str, Any] = {}

    def placed(self, node: Any) -> Any:
        """A plain config node in which every node under a key `teacher` is the teacher itself."""
        if isinstance(node, Mapping):
            return {key: self.teacher(value) if key == "teacher" else self.placed(value) for key, value in node.items()}
        return [self.placed(value) for value in node] if isinstance(node, list) else node

    def teacher(self, node: Mapping[str, Any]) -> Any:
        """The teacher that a node describes; a feature network that it stands on is trained on first use."""
        key = store.digest(node)
        if key not in self.known:
            network = (
                {"network": feature_networks.get_network(node["network"], self.cfg, self.registry)}
                if "network" in node
                else {}
            )
            self.known[key] = instantiate({**node, **network})
        return self.known[key]
