"""The losses on a generator's inner tokens that a config asks for."""

from collections.abc import Mapping
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from ldbench.config.components import instantiate, required_parameters, validate_types
from ldbench.config.compose import Registry, plain
from ldbench.core.backbone import Backbone
from ldbench.core.generator import Generator
from ldbench.core.interfaces import TokenLoss
from ldbench.pipeline.recipe import revisions, with_digests
from ldbench.pipeline.teachers import Teachers

FACTS = ("backbone", "image_size")  # what a loss is told at run time


def token_losses(cfg: DictConfig, registry: Registry) -> dict[str, Any]:
    """The plain nodes of the losses by name, without those that are null or have the weight 0.

    A loss without a teacher has the feature network of the data. Raises ValueError where the data have none.
    """
    nodes = plain(cfg.generator.get("losses")) or {}
    return {
        name: {"teacher": data_teacher(cfg, registry, name), **node} if takes_teacher(node) else node
        for name, node in nodes.items()
        if node is not None and node.get("weight") != 0
    }


def takes_teacher(node: Mapping[str, Any]) -> bool:
    """Whether a loss has a teacher that its node does not name."""
    return "teacher" not in node and "teacher" in required_parameters(node["_target_"])


def data_teacher(cfg: DictConfig, registry: Registry, name: str) -> Any:
    """The plain node of the teacher that is the data's feature network."""
    known = registry.options("network")
    if cfg.data.name not in known:
        raise ValueError(
            f"data={cfg.data.name} has no feature network for generator.losses.{name}. Known: network="
            f"{', '.join(sorted(known))}. Choose another teacher, such as "
            f"teacher@generator.losses.{name}.teacher=dinov2 (needs weights), or add network/{cfg.data.name}.yaml (see "
            "docs/data.md)."
        )
    return plain(registry.compose(None, ["+teacher=network", f"+data={cfg.data.name}"]).teacher)


def recipe_entries(cfg: DictConfig, registry: Registry) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a recipe holds of the losses, and of their revisions; both are empty without any."""
    nodes = token_losses(cfg, registry)
    if not nodes:
        return {}, {}
    described = {name: registry.with_component_names(with_digests(node, registry)) for name, node in nodes.items()}
    return {"losses": described}, {"losses": {name: revisions(node) for name, node in nodes.items()}}


def validate_token_losses(cfg: DictConfig, generator: Generator, registry: Registry) -> None:
    """Raises ValueError, with what to change, for losses that do not fit a generator. No teacher is built."""
    if cfg.generator.get("losses") and cfg.latents.get("cache") is not None:
        raise ValueError(
            f"latents.cache={cfg.latents.cache} does not say of which images its latents are, and generator.losses are "
            "on images. Leave one of them out."
        )
    if token_losses(cfg, registry) and getattr(generator.objective, "forward_mode", False):
        raise ValueError(
            f"{type(generator.objective).__name__} passes through the network more than once, and generator.losses are "
            "on the tokens of one pass. Choose objective=flow_matching, or leave them out."
        )
    with torch.device("meta"):
        build(cfg, generator.backbone, registry, without_teachers)


def build_token_losses(cfg: DictConfig, backbone: Backbone, registry: Registry) -> dict[str, TokenLoss]:
    """Builds the losses, seeded, with their teachers."""
    torch.manual_seed(cfg.seed)
    return build(cfg, backbone, registry, Teachers(cfg, registry).placed)


def build(cfg: DictConfig, backbone: Backbone, registry: Registry, placed: Any) -> dict[str, TokenLoss]:
    """Builds the losses, with `placed` for the teachers in a node."""
    found = {}
    for name, node in token_losses(cfg, registry).items():
        place = f"generator.losses.{name}"
        validate_types(node, place)
        if given := sorted({*FACTS} & node.keys()):
            raise ValueError(f"There is no config key {place}.{given[0]}: a loss is told it by the backbone and data.")
        try:
            found[name] = instantiate(placed(node), backbone=backbone, image_size=cfg.data.image_size)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from error
    return found


class NoTeacher:
    """Stands in for a teacher while a loss is validated."""

    revision = 1

    def channels(self, image_size: int, grid: tuple[int, int]) -> int:
        """One."""
        return 1

    def __call__(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """Never called."""
        raise AssertionError("a loss that is validated sees no images")


def without_teachers(node: Mapping[str, Any]) -> dict[str, Any]:
    """A plain node with a stand-in for each teacher."""
    return {key: NoTeacher() if key == "teacher" else value for key, value in node.items()}
