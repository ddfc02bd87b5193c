"""A cell's second half: a tokenizer's latents, and the generator of them, which is trained, imported, or there."""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from ldbench import official
from ldbench.artifacts import hub, store, weights
from ldbench.config.components import instantiate
from ldbench.config.compose import Registry
from ldbench.core.generator import Generator
from ldbench.core.interfaces import ImageData
from ldbench.core.latent import LatentSpec
from ldbench.core.tokenizer import Tokenizer
from ldbench.data.latents.awaited import AwaitedLatents
from ldbench.official.load import convert_weights, describe_generator
from ldbench.pipeline.generator_plan import GeneratorPlan, check_parts, make_course, plan_generator, stats_digest
from ldbench.pipeline.get_tokenizer import Obtained
from ldbench.results import records
from ldbench.runtime.device import find_device
from ldbench.runtime.process_group import broadcast_from_leader, leader_first

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ObtainedGenerator:
    """A complete generator artifact."""

    folder: Path
    digest: str

    @property
    def name(self) -> str:
        return store.name_of(self.folder) if store.is_complete(self.folder) else self.folder.name

    def load(self, registry: Registry = Registry()) -> Generator:
        """The generator. Raises ValueError for an artifact of something else."""
        generator = store.load(self.folder, registry=registry)
        if not isinstance(generator, Generator):
            raise ValueError(f"{self.folder} is a {type(generator).__name__}, and generator.path must be a generator.")
        return generator


def obtain_generator(cfg: DictConfig, obtained: Obtained, registry: Registry = Registry()) -> ObtainedGenerator:
    """The configured generator of a tokenizer's latents, built if it is not there. Raises ValueError for one of other latents."""
    if "path" in list(cfg.generator):  # also where it has no value yet
        found = leader_first(partial(stored, cfg))
    elif cfg.generator.weights is not None:
        found = leader_first(partial(imported, cfg))
    else:
        return trained(cfg, obtained, registry)
    check_latents(found, obtained, registry)
    return found


def check_generator(cfg: DictConfig, registry: Registry = Registry()) -> None:
    """Raises ValueError for a generator whose own parts do not fit together, whatever the latents."""
    if is_trained(cfg):
        make_course(cfg)
        check_parts(cfg, registry=registry)


def check_cell(cfg: DictConfig, registry: Registry, latent: LatentSpec, data: ImageData) -> None:
    """Raises ValueError for a generator that cannot be of these latents and images."""
    if is_trained(cfg):
        check_parts(cfg, latent, data.num_classes, registry)


def is_trained(cfg: DictConfig, kind: Literal["tokenizer", "generator"] = "generator") -> bool:
    """Whether the configured tokenizer or generator is one that this house trains, and not an artifact or released weights."""
    return "path" not in list(cfg[kind]) and cfg[kind].weights is None


def stored(cfg: DictConfig) -> ObtainedGenerator:
    """The artifact under `generator.path`."""
    if OmegaConf.is_missing(cfg.generator, "path") or cfg.generator.path is None:
        raise ValueError("generator=artifact needs generator.path: the folder of an artifact, or hf://owner/name.")
    folder = hub.local(cfg.generator.path)
    return ObtainedGenerator(folder, store.read_manifest(folder)["digest"])


def imported(cfg: DictConfig) -> ObtainedGenerator:
    """The artifact of the released weights under `generator.weights`, whose digest covers the file's content, its statistics and the objective."""
    name = cfg.generator.name
    official.entry(name, "generator")
    if cfg.generator.stats is None:
        raise ValueError(
            "Released generators come without the statistics of their latents. Say generator.stats=latents_stats.pt, or one scale, "
            "such as generator.stats=0.18215 for Stable Diffusion's latents."
        )
    file = weights.locate(cfg.generator.weights)
    recipe = {
        **{"kind": "generator", "official": name, "sha256": store.file_digest(file), "revision": official.REVISION},
        **{
            "stats": stats_digest(cfg),
            "objective": Registry().with_component_names(cfg.objective),
            "class_dropout": cfg.generator.class_dropout,
        },
    }
    digest = store.digest(recipe)
    folder = Path(cfg.paths.artifacts) / "generators" / f"{name}-{digest[:8]}"
    with store.building_lock(folder):
        if store.is_complete(folder):
            store.verify(folder)
            log.info("Generator %s is there already: %s", folder.name, folder)
        else:
            blueprint, state = describe_generator(cfg, convert_weights(name, file, averaged=True), cfg.generator.stats)
            provenance = {"created": records.now(), "environment": records.environment()}
            store.save(
                store.build(blueprint, state), folder, blueprint, recipe=recipe, digest=digest, provenance=provenance
            )
            log.info("Imported %s. Generator: %s", file.name, folder)
    return ObtainedGenerator(folder, digest)


def check_latents(found: ObtainedGenerator, obtained: Obtained, registry: Registry) -> None:
    """Raises ValueError, naming both, for a generator of other latents than the tokenizer's."""
    described = store.read_config(found.folder)
    upstream = described["recipe"].get("upstream", {})
    if upstream.get("tokenizer", obtained.digest) != obtained.digest:
        raise ValueError(
            f"The generator {found.name} makes latents of the tokenizer with digest {upstream['tokenizer'][:8]}, and {obtained.name} is another. "
            "Choose that one: tokenizer=artifact tokenizer.path=DIR, or the words that it was trained with."
        )
    told = described["keywords"].get("backbone", {}).get("latent")
    ours = latent_of(obtained, registry).to_dict()
    if told != ours:
        raise ValueError(
            f"The generator {found.name} makes latents of {told}, and {obtained.name} decodes {ours}. Choose two that fit."
        )


def latent_of(obtained: Obtained, registry: Registry) -> LatentSpec:
    """The latent of a tokenizer's artifact."""
    tokenizer = store.load(obtained.folder, registry=registry)
    assert isinstance(tokenizer, Tokenizer)
    return tokenizer.latent


def trained(cfg: DictConfig, obtained: Obtained, registry: Registry) -> ObtainedGenerator:
    """The artifact of the configured training on the tokenizer's latents."""
    planned, tokenizer = planned_for(cfg, obtained, registry)
    if broadcast_from_leader(store.is_complete(planned.folder)):
        store.verify(planned.folder)
        log.info("Generator %s is there already: %s", planned.name, planned.folder)
        return ObtainedGenerator(planned.folder, planned.digest)
    from ldbench.pipeline import (
        generator_training,  # Lightning takes seconds to load: what is there already, or imported, need not wait for it
    )

    return ObtainedGenerator(generator_training.train_or_reuse(planned, tokenizer.decode), planned.digest)


def latents_for(cfg: DictConfig, obtained: Obtained, registry: Registry = Registry()) -> None:
    """Makes the latents that the configured generator will be trained on, unless it is there already: then none are missed."""
    planned, _ = planned_for(cfg, obtained, registry)
    if not store.is_complete(planned.folder):
        make_encoder(cfg, obtained, registry).store("train")


def planned_for(cfg: DictConfig, obtained: Obtained, registry: Registry) -> tuple[GeneratorPlan, Tokenizer]:
    """The configured training on a tokenizer's latents, which are made when it begins, and the tokenizer."""
    tokenizer = store.load(obtained.folder, registry=registry)
    assert isinstance(tokenizer, Tokenizer)
    encoder = make_encoder(cfg, obtained, registry)
    latents = AwaitedLatents(
        encoder.contents("train"),
        latent=tokenizer.latent,
        seed=cfg.seed,
        make=lambda: leader_first(partial(encoder.store, "train")),
    )
    return plan_generator(cfg, latents, registry), tokenizer


def make_encoder(cfg: DictConfig, obtained: Obtained, registry: Registry) -> Any:
    """The job that makes the stores of a cell's latents, as `latents` in the config says."""
    facts = {
        "tokenizer": store.load(obtained.folder, registry=registry),
        "tokenizer_name": obtained.name,
        "tokenizer_digest": obtained.digest,
        "data": obtained.data,
        "latents": Path(cfg.paths.artifacts) / "latents",
        "workers": cfg.trainer.workers,
        "device": find_device(cfg.trainer.accelerator),
    }
    return instantiate(cfg.latents, **facts)
