"""A tokenizer's training, validated before any work starts."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ldbench.artifacts import store, weights
from ldbench.config.components import instantiate
from ldbench.config.compose import Registry, plain
from ldbench.config.error_messages import did_you_mean
from ldbench.config.value_types import validate_folder_name
from ldbench.core.interfaces import ImageData
from ldbench.core.latent import LatentSpec
from ldbench.io.files import mark_outputs
from ldbench.pipeline import trainer_settings
from ldbench.pipeline.feature_networks import network_digest
from ldbench.pipeline.init_weights import recipe_entry, resolve_init
from ldbench.pipeline.recipe import plugin_entry, public_config, revisions, with_digests
from ldbench.tracking.wandb_runs import Training
from ldbench.training.stage_config import TRAINING_REVISION, Stage, described_stage

log = logging.getLogger(__name__)

MAX_CLASSES = 6  # that are listed by name
COMPILED_REVISION = 2  # of compiled trainings; raised when their numbers change, and those of others do not
# keys that come with a generator
GENERATION = ("generator", "interpolant", "times", "objective", "sampler", "guidance")


@dataclass(frozen=True)
class Plan:
    """A tokenizer's training whose parts fit together."""

    cfg: DictConfig
    registry: Registry
    data: ImageData
    latent: LatentSpec
    stages: Sequence[Stage]
    blueprint: store.Blueprint  # of the finished tokenizer
    recipe: Mapping[str, Any]  # all that its numbers depend on
    digest: str

    @property
    def folder(self) -> Path:
        """Where the artifact is, or will be."""
        return Path(self.cfg.paths.artifacts) / "tokenizers" / self.name

    @property
    def run_folder(self) -> Path:
        """Where its training keeps checkpoints, logs and pictures."""
        return Path(self.cfg.paths.runs) / self.name

    @property
    def name(self) -> str:
        """The name of the artifact's folder."""
        return f"{self.cfg.tokenizer.name}-{self.digest[:8]}"

    @property
    def training(self) -> Training:
        """What loggers show of the training."""
        names = (self.cfg.tokenizer.name, self.cfg.data.name)
        return Training("tokenizer", self.name, self.digest, names, public_config(self.cfg, self.registry))


def plan_tokenizer(cfg: DictConfig, registry: Registry = Registry()) -> Plan:
    """Returns the tokenizer's training that a config asks for; `pipeline.validate` has seen the config's keys before.

    Raises ValueError, with what to change, for parts that do not fit. The data are opened last.
    """
    validate_required(cfg)
    validate_image_size(cfg, registry)
    stages = build_stages(cfg)
    blueprint = build_blueprint(cfg, registry)
    latent = final_latent(cfg, stages)
    data = open_data(cfg)
    recipe = build_recipe(cfg, data, blueprint, registry)
    recipe |= recipe_entry(resolve_init(cfg, "tokenizer", registry)) | encoder_init_entry(cfg, registry)
    return Plan(cfg, registry, data, latent, stages, blueprint, recipe, store.digest(recipe))


def encoder_init_entry(cfg: DictConfig, registry: Registry = Registry()) -> dict[str, str]:
    """What a recipe holds of the weights that the encoder starts from: a file's digest, or a feature network's.

    Raises ValueError where there are none.
    """
    source = plain(cfg.tokenizer.get("encoder_init"))
    if source is None:
        return {}
    named = source["name"] if isinstance(source, Mapping) and "name" in source else source
    if cfg.init is not None:
        raise ValueError(
            f"init={cfg.init} replaces the whole tokenizer, and tokenizer.encoder_init={named} its encoder. "
            "Set tokenizer.encoder_init=null, or leave init out."
        )
    try:
        if isinstance(source, Mapping):
            return {"encoder_init": network_digest(source, registry)}
        return {"encoder_init": store.file_digest(weights.locate(source))}
    except (ValueError, OSError) as error:
        raise ValueError(f"tokenizer.encoder_init={named}: {error}") from error


def validate_names(cfg: DictConfig) -> None:
    """Raises ValueError for names and places that would be written where nobody looks for them."""
    if OmegaConf.is_missing(cfg.tokenizer, "weights"):
        raise ValueError(
            f"These need a value: tokenizer.weights. Tokenizer {cfg.tokenizer.name} is none that is trained here: give "
            "a file, a folder, or hf://owner/name, as in tokenizer.weights=..."
        )
    generator = ["generator.name"] if OmegaConf.select(cfg, "generator.name") is not None else []
    for key in ("tokenizer.name", "data.name", *generator):
        validate_folder_name(key, OmegaConf.select(cfg, key))
    for key in cfg.paths:
        if not isinstance(cfg.paths[key], str) or not cfg.paths[key].strip():
            raise ValueError(f"paths.{key} must be a folder, got {cfg.paths[key]!r}. The working directory is `.`.")


def build_data(cfg: DictConfig, registry: Registry) -> ImageData:
    """Returns the configured images. Raises ValueError where they have another size, or cannot be read."""
    validate_required(cfg)
    validate_image_size(cfg, registry)
    return open_data(cfg)


def open_data(cfg: DictConfig) -> ImageData:
    """Returns the configured images, and says which they are. Raises ValueError for what cannot be read."""
    mark_output_folders(cfg)  # which may lie among the images
    data = instantiate(cfg.data)
    announce(data.name, len(data.train), len(data.test), tuple(data.class_names))
    return data


def mark_output_folders(cfg: DictConfig) -> None:
    """Marks the folders of outputs that exist: nothing in them is data."""
    for folder in ("artifacts", "records", "runs"):
        mark_outputs(Path(cfg.paths[folder]))


@cache
def announce(name: str, num_train: int, num_test: int, class_names: tuple[str, ...]) -> None:
    """Logs once how many images are for training and held out, and their classes."""
    few = len(class_names) <= MAX_CLASSES
    shown = class_names if few else (*class_names[: MAX_CLASSES - 1], "...", class_names[-1])
    classes = f"{len(class_names)} class{'es' if len(class_names) > 1 else ''}"
    log.info("Images of %s: %d for training, %d held out, %s: %s", name, num_train, num_test, classes, ", ".join(shown))


def validate_keys(cfg: DictConfig) -> None:
    """Raises ValueError for keys at the top that nothing reads."""
    for key in set(cfg) - known_keys():
        raise ValueError(f"There is no config key {key}.{did_you_mean(str(key), sorted(known_keys()))}")


@cache
def known_keys() -> frozenset[str]:
    """The keys at the top of what the entry points compose."""
    return frozenset(map(str, (*Registry().compose("train"), *Registry().compose("run"), *GENERATION)))


def validate_required(cfg: DictConfig) -> None:
    """Raises ValueError naming the first values that must be given and were not."""
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise ValueError(
            f"These need a value: {', '.join(missing)}. Give it on the command line, as in {missing[0]}=..."
        )


def validate_image_size(cfg: DictConfig, registry: Registry) -> None:
    """Raises ValueError unless the data hands over images of the tokenizer's size."""
    wanted, given = cfg.tokenizer.image_size, cfg.data.image_size
    if wanted == given:
        return
    if wanted is None:
        raise ValueError(f"tokenizer.image_size must be the pixels of an image's side, such as {given}, got null.")
    any_size = [
        name for name, raw in registry.options("data").items() if raw.get("image_size") == "${tokenizer.image_size}"
    ]
    fitting = [name for name, raw in registry.options("tokenizer").items() if raw.get("image_size") == given]
    tokenizers = (
        f", or a tokenizer of {given} px: {', '.join(f'tokenizer={name}' for name in fitting)}" if fitting else ""
    )
    raise ValueError(
        f"Tokenizer {cfg.tokenizer.name} takes {wanted} px images, but data {cfg.data.name} hands over {given} px.\n"
        f"Choose data of any size: {', '.join(f'data={name}' for name in any_size)}{tokenizers}."
    )


def build_stages(cfg: DictConfig) -> list[Stage]:
    """The stages of the recipe in order, with the trainer's cap on their steps."""
    limit = cfg.trainer.limit_steps
    found = []
    for name, node in (cfg.tokenizer.stages or {}).items():
        if node is None:
            raise ValueError(f"tokenizer.stages.{name} is null. Leave a stage out with ~tokenizer.stages.{name}.")
        optimizer = instantiate(node.optimizer)
        settings = {key: value for key, value in plain(node).items() if key not in ("optimizer", "mask_ratio")}
        law = instantiate(node.mask_ratio) if OmegaConf.is_config(node.mask_ratio) else node.mask_ratio
        if limit is not None:
            settings["max_steps"] = min(settings["max_steps"], limit)
        found.append(Stage.from_config(str(name), settings, optimizer=optimizer, mask_ratio=law))
    if not found:
        raise ValueError(f"Tokenizer {cfg.tokenizer.name} has no stages. Give it at least one under tokenizer.stages.")
    for stage in found:
        if stage.image_size > cfg.tokenizer.image_size:
            raise ValueError(
                f"Stage {stage.name} wants {stage.image_size} px, more than the tokenizer's {cfg.tokenizer.image_size} "
                "px images."
            )
        for term in stage.losses.keys() - (cfg.tokenizer.losses or {}).keys():
            if stage.losses[term] is not None:
                known = ", ".join(sorted(cfg.tokenizer.losses or {}))
                raise ValueError(
                    f"Stage {stage.name} changes a loss term {term} that tokenizer.losses does not have. Known: "
                    f"{known}. If you removed it on purpose, say ~tokenizer.stages.{stage.name}.losses.{term} too."
                )
        world_size = trainer_settings.world_size(cfg)
        if stage.batch_size % world_size:
            raise ValueError(
                f"Stage {stage.name} has batches of {stage.batch_size} images, which {world_size} processes cannot "
                f"share evenly. Set tokenizer.stages.{stage.name}.batch_size to a multiple of {world_size}."
            )
    if found[-1].image_size != cfg.tokenizer.image_size:
        raise ValueError(
            f"The last stage, {found[-1].name}, ends at {found[-1].image_size} px, but the tokenizer is for "
            f"{cfg.tokenizer.image_size} px."
        )
    return found


def build_blueprint(cfg: DictConfig, registry: Registry) -> store.Blueprint:
    """Returns the finished tokenizer as plain data. Raises ValueError for a class that is in no yaml of the group."""
    keywords = plain(cfg.tokenizer.model)
    component = registry.component_name("tokenizer", keywords.pop("_target_"))
    return store.Blueprint("tokenizer", component, {**keywords, "image_size": cfg.tokenizer.image_size})


def final_latent(cfg: DictConfig, stages: Sequence[Stage]) -> LatentSpec:
    """The latent that the recipe ends in.

    Raises ValueError when the tokenizer cannot be built, cannot take the image size of a stage, or has nothing to
    train.
    """
    tokenizer = None
    for stage in stages:
        try:
            tokenizer = tokenizer or instantiate(cfg.tokenizer.model, image_size=stage.image_size)
            tokenizer.resize(stage.image_size)
        except ValueError as error:
            raise ValueError(
                f"Tokenizer {cfg.tokenizer.name}, stage {stage.name} ({stage.image_size} px): {error}"
            ) from error
        if stage.max_steps and not list(tokenizer.parameters()):
            raise ValueError(
                f"Tokenizer {cfg.tokenizer.name} has nothing to train, and stage {stage.name} has {stage.max_steps} "
                f"steps. Say tokenizer.stages.{stage.name}.max_steps=0."
            )
    assert tokenizer is not None, "a recipe has a stage"
    return tokenizer.latent


def build_recipe(cfg: DictConfig, data: ImageData, blueprint: store.Blueprint, registry: Registry) -> dict[str, Any]:
    """All that the tokenizer's numbers depend on, and nothing else: its digest is the tokenizer's identity."""
    described = []
    for name, node in plain(cfg.tokenizer.stages).items():  # their order counts
        losses = with_digests(stage_losses(cfg, node["losses"]), registry)
        described.append({"name": name, **registry.with_component_names({**described_stage(node), "losses": losses})})
    encoder = cfg.tokenizer.get("encoder_init")
    parts = (cfg.tokenizer.model, cfg.tokenizer.losses or {}, cfg.tokenizer.stages, encoder, cfg.data)
    return {
        "kind": "tokenizer",
        **plugin_entry(*parts),
        "component": blueprint.component,
        "keywords": dict(blueprint.keywords),
        "stages": described,
        "seed": cfg.tokenizer.seed,
        "data": {"fingerprint": data.fingerprint, "label_safe_flips": data.label_safe_flips},
        "numerics": trainer_settings.numeric_settings(cfg),
        "revisions": {
            "model": registry.component("tokenizer", blueprint.component).revision,
            "losses": {name: revisions(node) for name, node in stage_losses(cfg, {}).items()},
            "training": TRAINING_REVISION,
            **({"compiled": COMPILED_REVISION} if cfg.trainer.compile else {}),
        },
    }


def stage_losses(cfg: DictConfig, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the loss terms of a stage by name: the recipe's with the stage's changes; null switches a term off."""
    terms = {
        name: node
        for name, node in (plain(cfg.tokenizer.losses) or {}).items()
        if node is not None and changes.get(name, {}) is not None
    }
    return {name: plain(OmegaConf.merge(node, changes.get(name, {}))) for name, node in terms.items()}
