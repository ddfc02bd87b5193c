"""The configured tokenizer: trained from a recipe, imported from released weights, or opened from an artifact."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from ldbench import official
from ldbench.artifacts import hub, store, weights
from ldbench.artifacts.building import get_or_build
from ldbench.config.compose import Registry, plain
from ldbench.core.interfaces import ImageData
from ldbench.core.latent import LatentSpec
from ldbench.official.load import convert_weights, released_latent_stats
from ldbench.pipeline.recipe import is_trained
from ldbench.pipeline.tokenizer_plan import build_data, plan_tokenizer
from ldbench.pipeline.trained_model import TrainedModel
from ldbench.runtime.process_group import leader_first

log = logging.getLogger(__name__)

# Keywords that no weights file holds: the config decides.
CONFIG_KEYWORDS = ("position_resize", "channels_last", "checkpointing")


# raises ValueError for images, and for latents where it asks for them, that others cannot take
Check = Callable[[Callable[[], LatentSpec], ImageData], None]


def get_tokenizer(
    cfg: DictConfig, registry: Registry = Registry(), *, check: Check | None = None
) -> tuple[TrainedModel, ImageData]:
    """Returns the configured tokenizer, which is built unless it exists, and the data that the config pairs it with.

    Raises ValueError, before anything is trained, for a config whose parts do not fit, and for what `check` refuses.
    """
    if is_trained(cfg.tokenizer):
        return train_or_reuse(cfg, registry, check)
    if "path" in list(cfg.tokenizer):  # also where it has no value yet
        model, data = leader_first(partial(open_artifact, cfg, registry))
    else:
        model, data = import_released(cfg, registry)
    if check is not None:
        check(lambda: model.load_tokenizer().latent, data)
    return model, data


def open_artifact(cfg: DictConfig, registry: Registry) -> tuple[TrainedModel, ImageData]:
    """Returns the artifact under `tokenizer.path`, and the data of its size."""
    return artifact_model(cfg, registry), build_data(cfg, registry)


def artifact_model(cfg: DictConfig, registry: Registry) -> TrainedModel:
    """Returns the artifact under `tokenizer.path`, whose image size the config then has.

    Raises ValueError for a folder that is none of a tokenizer.
    """
    if OmegaConf.is_missing(cfg.tokenizer, "path") or cfg.tokenizer.path is None:
        raise ValueError("tokenizer=artifact needs tokenizer.path: the folder of an artifact, or hf://owner/name.")
    folder = hub.local(cfg.tokenizer.path)
    manifest = store.read_manifest(folder)
    size = store.read_config(folder)["keywords"].get("image_size")
    if type(size) is not int:
        raise ValueError(
            f"{folder / store.CONFIG} has no image_size: it is no tokenizer. Set tokenizer.path to the folder of one."
        )
    cfg.tokenizer.image_size = size
    return TrainedModel(folder, manifest["digest"], registry)


def import_released(cfg: DictConfig, registry: Registry) -> tuple[TrainedModel, ImageData]:
    """Returns the artifact of the released weights under `tokenizer.weights`; its digest covers the contents of
    the file and of the config.json beside it.
    """
    name = cfg.tokenizer.name
    try:
        entry = official.entry(name, "tokenizer")
    except ValueError as error:
        raise ValueError(f"tokenizer.weights={cfg.tokenizer.weights}: {error}") from error
    file = weights.locate(cfg.tokenizer.weights)
    settings = {key: value for key, value in plain(cfg.tokenizer.model).items() if key in CONFIG_KEYWORDS}
    stated = weights.read_settings(file)
    size = {"image_size": cfg.tokenizer.image_size} if entry.any_size else {}
    way = cfg.tokenizer.get("normalization")
    given = {} if way is None else {"normalization": way}
    sha256 = store.file_digest(file)
    stats = released_latent_stats(name, cfg.tokenizer.weights, given)
    recipe = {
        "kind": "tokenizer",
        "official": name,
        "sha256": sha256,
        "revision": official.REVISION,
        "choices": settings | size,
        **({"config": stated} if stated else {}),
        **({"averaged": True} if entry.averaged else {}),
        **({"latent_stats": stats.to_dict()} if stats else {}),
    }
    digest = store.digest(recipe)
    model = TrainedModel(Path(cfg.paths.artifacts) / "tokenizers" / f"{name}-{digest[:8]}", digest, registry)
    if store.is_complete(model.folder):
        validate_keywords(cfg, store.read_config(model.folder)["keywords"])
    data: list[ImageData] = []

    def build() -> tuple[nn.Module, store.Blueprint]:
        found = convert_weights(name, cfg.tokenizer.weights, given)
        found = replace(found, keywords={**found.keywords, **size})
        validate_keywords(cfg, found.keywords)
        data.append(build_data(cfg, registry))  # what does not fit is refused before anything is stored
        blueprint = store.Blueprint(found.group, found.component, {**found.keywords, **settings}, found.latent_stats)
        return store.build(blueprint, found.state), blueprint

    get_or_build(
        model.folder,
        kind="Tokenizer",
        done=f"Imported {file.name}",
        digest=digest,
        recipe=recipe,
        build=build,
        collective=False,
    )
    return model, data[0] if data else build_data(cfg, registry)


def validate_keywords(cfg: DictConfig, held: Mapping[str, Any]) -> None:
    """Raises ValueError where the config differs from what the tensors of a weights file hold.

    Where published files have other sizes than their names say, those of the file are taken, and the difference is
    logged; the image size remains the config's, since the data have it.
    """
    given = {**plain(cfg.tokenizer.model), "image_size": cfg.tokenizer.image_size}
    differing = [key for key, value in held.items() if key not in CONFIG_KEYWORDS and given.get(key, value) != value]
    if official.entry(cfg.tokenizer.name, "tokenizer").sizes_from_file:
        others = [f"{key} {held[key]} ({cfg.tokenizer.name}: {given[key]})" for key in differing if key != "image_size"]
        if others:
            log.warning("%s is of other sizes than its name says: %s.", cfg.tokenizer.weights, ", ".join(others))
        differing = [key for key in differing if key == "image_size"]
    if differing:
        keys = {key: "tokenizer.image_size" if key == "image_size" else f"tokenizer.model.{key}" for key in differing}
        faults = "; ".join(f"{keys[key]} is {given[key]}, and the file holds {held[key]}" for key in differing)
        cure = " ".join(f"{keys[key]}={held[key]}" for key in differing)
        raise ValueError(
            f"These weights are of another {cfg.tokenizer.name} than the config: "
            f"{faults}.\nSet {cure}, or give another file."
        )


def train_or_reuse(cfg: DictConfig, registry: Registry, check: Check | None) -> tuple[TrainedModel, ImageData]:
    """Returns the artifact of the configured recipe, which is trained unless it exists."""
    plan = plan_tokenizer(cfg, registry)
    if check is not None:
        check(lambda: plan.latent, plan.data)

    def build() -> tuple[nn.Module, store.Blueprint]:
        from ldbench.pipeline.tokenizer_training import train_tokenizer  # Lightning takes seconds to load

        return train_tokenizer(plan), plan.blueprint

    get_or_build(
        plan.folder,
        kind="Tokenizer",
        done="Trained",
        digest=plan.digest,
        recipe=plan.recipe,
        build=build,
        collective=True,
    )
    return TrainedModel(plan.folder, plan.digest, registry), plan.data
