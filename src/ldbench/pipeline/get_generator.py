"""The configured generator of a tokenizer's latents: trained, imported from released weights, or an artifact."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from ldbench import official
from ldbench.artifacts import hub, store, weights
from ldbench.artifacts.building import get_or_build, validate_upstream
from ldbench.config.components import instantiate
from ldbench.config.compose import Registry
from ldbench.core.interfaces import ImageData
from ldbench.core.tokenizer import Tokenizer
from ldbench.data.latents.awaited import AwaitedLatents
from ldbench.official.load import convert_weights, describe_generator
from ldbench.pipeline.generator_plan import GeneratorPlan, plan_generator, validate_guide
from ldbench.pipeline.generator_stats import OWN, configured_stats, describe_stats, log_line, uses_own, validate_stats
from ldbench.pipeline.recipe import is_trained
from ldbench.pipeline.trained_model import MeasuredModel, TrainedModel
from ldbench.runtime.device import find_device
from ldbench.runtime.process_group import leader_first

log = logging.getLogger(__name__)


def get_generator(
    cfg: DictConfig, tokenizer: MeasuredModel, data: ImageData, registry: Registry = Registry()
) -> TrainedModel:
    """Returns the configured generator of a tokenizer's latents, which is built unless it exists.

    Raises ValueError for a generator of other latents.
    """
    if is_trained(cfg.generator):
        return train_or_reuse(cfg, tokenizer, data, registry)
    if "path" in list(cfg.generator):  # also where it has no value yet
        generator = leader_first(partial(open_artifact, cfg, registry))
    else:
        generator = import_released(cfg, tokenizer, registry)
    validate_latents(generator, tokenizer)
    return generator


def validate_given(cfg: DictConfig, registry: Registry = Registry()) -> None:
    """Raises ValueError for an artifact, weights or statistics under `generator` that fit no latents."""
    if "path" in list(cfg.generator):
        open_artifact(cfg, registry)
        return
    if cfg.generator.weights is not None:
        released_weights(cfg)
    validate_stats(cfg)


def released_weights(cfg: DictConfig) -> Path:
    """The file under `generator.weights`. Raises ValueError where there is none."""
    try:
        official.entry(cfg.generator.name, "generator")
        return weights.locate(cfg.generator.weights)
    except (ValueError, OSError) as error:
        raise ValueError(f"generator.weights={cfg.generator.weights}: {error}") from error


def open_artifact(cfg: DictConfig, registry: Registry) -> TrainedModel:
    """Returns the artifact under `generator.path`."""
    if OmegaConf.is_missing(cfg.generator, "path") or cfg.generator.path is None:
        raise ValueError("generator=artifact needs generator.path: the folder of an artifact, or hf://owner/name.")
    folder = hub.local(cfg.generator.path)
    return TrainedModel(folder, store.read_manifest(folder)["digest"], registry)


def import_released(cfg: DictConfig, tokenizer: MeasuredModel, registry: Registry) -> TrainedModel:
    """Returns the artifact of the released weights under `generator.weights`.

    Its digest covers the file's content, the config.json beside it, the statistics of its latents, and the objective.
    """
    name, own = cfg.generator.name, tokenizer.latent_stats
    if uses_own(cfg):
        cfg.generator.stats = OWN  # records say which statistics were used
    stats = configured_stats(cfg, own)
    file = released_weights(cfg)
    stated = weights.read_settings(file)
    recipe = {
        "kind": "generator",
        "official": name,
        "sha256": store.file_digest(file),
        "revision": official.REVISION,
        **({"config": stated} if stated else {}),
        "stats": describe_stats(cfg, own),
        "objective": Registry().with_component_names(cfg.objective),
        "class_dropout": cfg.generator.class_dropout,
    }
    digest = store.digest(recipe)
    folder = Path(cfg.paths.artifacts) / "generators" / f"{name}-{digest[:8]}"

    def build() -> tuple[nn.Module, store.Blueprint]:
        log.info("%s", log_line(cfg, stats))
        blueprint, state = describe_generator(cfg, convert_weights(name, file), stats)
        return store.build(blueprint, state), blueprint

    get_or_build(
        folder,
        kind="Generator",
        done=f"Imported {file.name}",
        digest=digest,
        recipe=recipe,
        build=build,
        collective=False,
    )
    return TrainedModel(folder, digest, registry)


def validate_latents(generator: TrainedModel, tokenizer: MeasuredModel) -> None:
    """Raises ValueError, naming both, for a generator of other latents than the tokenizer's."""
    described = store.read_config(generator.folder)
    upstream = described["recipe"].get("upstream", {})
    if upstream.get("tokenizer", tokenizer.digest) != tokenizer.digest:
        raise ValueError(
            f"The generator {generator.name} makes latents of the tokenizer with digest {upstream['tokenizer'][:8]}, "
            f"and {tokenizer.name} is another. Choose that one: "
            "tokenizer=artifact tokenizer.path=DIR, or the overrides "
            "that it was trained with."
        )
    validate_upstream(generator.folder, {"tokenizer": tokenizer.content_key})
    theirs = described["keywords"].get("backbone", {}).get("latent")
    ours = tokenizer.load_tokenizer().latent.to_dict()
    if theirs != ours:
        raise ValueError(
            f"The generator {generator.name} makes latents of {theirs}, and {tokenizer.name} decodes {ours}. "
            "Choose two that fit."
        )


def train_or_reuse(cfg: DictConfig, tokenizer: MeasuredModel, data: ImageData, registry: Registry) -> TrainedModel:
    """Returns the artifact of the configured training on the tokenizer's latents."""
    return train_plan(plan_for(cfg, tokenizer, data, registry), partial(decode, tokenizer.load_tokenizer()))


def train_plan(plan: GeneratorPlan, decode: Callable[[Tensor], Tensor] | None = None) -> TrainedModel:
    """Returns the artifact of a plan's generator, which is trained unless it exists.

    `decode` turns raw latents (K, N, C) into images for the pictures during training; without it they show latents.
    """

    def build() -> tuple[nn.Module, store.Blueprint]:
        from ldbench.pipeline.generator_training import train_generator  # Lightning takes seconds to load

        return train_generator(plan, decode), plan.blueprint

    get_or_build(
        plan.folder,
        kind="Generator",
        done="Trained",
        digest=plan.digest,
        recipe=plan.recipe,
        build=build,
        collective=True,
        upstream={} if plan.latents.tokenizer_key is None else {"tokenizer": plan.latents.tokenizer_key},
        averages={decay: plan.weights_path(decay) for decay in plan.other_averages},
    )
    return TrainedModel(plan.folder, plan.digest, plan.registry)


def decode(
    tokenizer: Tokenizer,
    z: Tensor,  # (B, N, C)
) -> Tensor:  # (B, 3, H, W)
    """Returns the images of latents, computed on the device where the tokenizer is."""
    return tokenizer.decode(z.to(next(tokenizer.parameters(), z).device))


def get_training_latents(
    cfg: DictConfig, tokenizer: MeasuredModel, data: ImageData, registry: Registry = Registry()
) -> None:
    """Encodes the latents that the configured generator will be trained on, unless it exists: then none are needed."""
    if not store.is_complete(plan_for(cfg, tokenizer, data, registry).folder):
        build_encoder(cfg, tokenizer, data).store("train")


def plan_for(cfg: DictConfig, tokenizer: MeasuredModel, data: ImageData, registry: Registry) -> GeneratorPlan:
    """Returns the configured training on a tokenizer's latents, which are encoded when they are first read."""
    validate_guide(cfg, tokenizer.content_key)
    encoder = build_encoder(cfg, tokenizer, data)
    latents = AwaitedLatents(
        encoder.contents("train"),
        latent=tokenizer.load_tokenizer().latent,
        seed=cfg.seed,
        make=lambda: leader_first(partial(encoder.store, "train")),
    )
    return plan_generator(cfg, latents, registry, own_stats=tokenizer.latent_stats, images=data.train)


def build_encoder(cfg: DictConfig, tokenizer: MeasuredModel, data: ImageData) -> Any:
    """Returns the job that encodes a cell's latents, with the settings under `latents` in the config."""
    return instantiate(
        cfg.latents,
        tokenizer=tokenizer.load_tokenizer(),
        tokenizer_name=tokenizer.name,
        tokenizer_digest=tokenizer.digest,
        tokenizer_key=tokenizer.content_key,
        data=data,
        latents=cfg.paths.latents,
        workers=cfg.trainer.workers,
        device=find_device(cfg.trainer.accelerator),
    )
