"""A generator's training, validated before any work starts."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from ldbench.artifacts import hub, store
from ldbench.config.components import instantiate, parameter_names, validate_types
from ldbench.config.compose import Registry, plain
from ldbench.core.generator import Generator
from ldbench.core.interfaces import Guidance, ImageSet, LatentSet, Sampler
from ldbench.core.latent import LatentSpec
from ldbench.core.latent_stats import LatentStats
from ldbench.core.normalizer import Normalizer
from ldbench.core.time_shift import DIMENSION, REFERENCE, dimension_shift
from ldbench.pipeline import trainer_settings
from ldbench.pipeline.generator_stats import configured_stats, describe_stats, validate_stats
from ldbench.pipeline.init_weights import recipe_entry, resolve_init, start_tensors
from ldbench.pipeline.recipe import is_trained, plugin_entry, public_config, revisions
from ldbench.pipeline.token_losses import recipe_entries, validate_token_losses
from ldbench.pipeline.tokenizer_plan import GENERATION
from ldbench.sampling.guidance import Unguided
from ldbench.tracking.wandb_runs import Training
from ldbench.training.generator_config import TRAINING_REVISION, GeneratorTrainingConfig

log = logging.getLogger(__name__)

ROUNDING = 1e-5  # by which statistics of the same latents may differ


@dataclass(frozen=True)
class GeneratorPlan:
    """A generator's training whose parts fit together."""

    cfg: DictConfig
    registry: Registry
    latents: LatentSet
    course: GeneratorTrainingConfig
    blueprint: store.Blueprint  # of the finished generator
    recipe: Mapping[str, Any]  # all that its numbers depend on
    digest: str
    stats: LatentStats | None  # by which latents are normalized; None: measured ones
    images: ImageSet | None = None  # of which the latents are, for losses on them

    @property
    def folder(self) -> Path:
        """Where the artifact is, or will be."""
        return Path(self.cfg.paths.artifacts) / "generators" / self.name

    @property
    def run_folder(self) -> Path:
        """Where its training keeps checkpoints, logs and pictures."""
        return Path(self.cfg.paths.runs) / self.name

    @property
    def name(self) -> str:
        """The name of the artifact's folder."""
        return f"{self.cfg.generator.name}-{self.digest[:8]}"

    def weights_path(self, decay: float | None) -> Path:
        """Where the run keeps the backbone at its end, on an average or on the last weights (None)."""
        return self.run_folder / "weights" / f"{'last' if decay is None else decay}.safetensors"

    @property
    def other_averages(self) -> list[float]:
        """The decays of the averages that are stored beside the exported weights."""
        return [decay for decay in self.course.ema_decays if decay != self.course.exported_decay]

    @property
    def training(self) -> Training:
        """What loggers show of the training."""
        tokenizer = self.cfg.tokenizer
        names = (
            Path(tokenizer.path).name if "path" in tokenizer else tokenizer.name,
            self.cfg.generator.name,
            self.cfg.data.name,
        )
        return Training("generator", self.name, self.digest, names, public_config(self.cfg, self.registry))


def has_generator(cfg: DictConfig) -> bool:
    """Whether a config has a generator. Raises ValueError for parts of one without the generator itself."""
    if "name" in cfg.get("generator", {}):
        return True
    given = [key for key in GENERATION if key in cfg]
    if given:
        override = "backbone=... or size=..." if given[0] == "generator" else f"{given[0]}=..."
        raise ValueError(
            f"{override} is of a generator, and none is chosen. Say generator=sit, or another that --help lists."
        )
    return False


def plan_generator(
    cfg: DictConfig,
    latents: LatentSet,
    registry: Registry = Registry(),
    *,
    own_stats: LatentStats | None = None,  # the tokenizer's
    images: ImageSet | None = None,  # of which the latents are
) -> GeneratorPlan:
    """Returns the generator's training that a config asks for on these latents.

    Raises ValueError, with what to change, for settings out of range. `validate_cell` has seen that the parts fit.
    """
    course = build_training_config(cfg)
    if cfg.generator.weights is not None:
        raise ValueError(
            "generator.weights are released weights, and this would train others. Leave them out, "
            f"or open them: ldbench.load_official({cfg.generator.name!r}, PATH, stats=...)."
        )
    facts = runtime_keywords(cfg, latents.latent, latents.num_classes)
    stats = configured_stats(cfg, own_stats)
    if stats is not None:
        stats.normalizer(latents.latent.channels)
    parts = {"backbone": plain(cfg.generator.backbone), "objective": plain(cfg.objective)}
    trained = ("max_steps", "batch_size", "accumulate", "exported_decay", "optimizer")
    settings = {key: plain(cfg.generator)[key] for key in trained}
    # other averages are stored beside the weights, and no number of the weights depends on them
    settings["ema_decays"] = [] if course.exported_decay is None else [course.exported_decay]
    named = registry.with_component_names({**parts, "course": settings})
    keywords = {
        "backbone": {**named["backbone"], **facts, "latent": latents.latent.to_dict()},
        "objective": named["objective"],
        "normaliser": {"channels": latents.latent.channels},
        "class_dropout": cfg.generator.class_dropout,
    }
    recipe = {
        "kind": "generator",
        "keywords": keywords,
        "course": named["course"],
        "seed": cfg.seed,
        "latents": dict(latents.settings),
        "upstream": dict(latents.upstream),
        "stats": describe_stats(cfg, own_stats),
        "numerics": trainer_settings.numeric_settings(cfg),
        "revisions": {**{part: revisions(node) for part, node in parts.items()}, "training": TRAINING_REVISION},
    }
    losses, loss_revisions = recipe_entries(cfg, registry)
    recipe |= losses
    recipe["revisions"] |= loss_revisions
    recipe |= plugin_entry(cfg.generator, cfg.objective)
    recipe |= recipe_entry(resolve_init(cfg, "generator", registry))
    blueprint = store.Blueprint("generator", "generator", keywords)
    return GeneratorPlan(cfg, registry, latents, course, blueprint, recipe, store.digest(recipe), stats, images)


def build_training_config(cfg: DictConfig) -> GeneratorTrainingConfig:
    """Returns the settings of the training, with the trainer's limit on its steps.

    Raises ValueError for values that are missing or out of range.
    """
    missing = sorted(key for key in OmegaConf.missing_keys(cfg) if key.split(".")[0] in GENERATION)
    if missing:
        raise ValueError(
            f"These need a value: {', '.join(missing)}. Give it on the command line, as in {missing[0]}=..."
        )
    node, limit = plain(cfg.generator), cfg.trainer.limit_steps
    if limit is not None:
        node["max_steps"] = min(node["max_steps"], limit)
    course = GeneratorTrainingConfig.from_config(node, optimizer=instantiate(cfg.generator.optimizer))
    if course.batch_size % trainer_settings.world_size(cfg):
        raise ValueError(
            f"Batches of {course.batch_size} latents cannot be shared evenly by {trainer_settings.world_size(cfg)} "
            f"processes. Set generator.batch_size to a multiple of {trainer_settings.world_size(cfg)}."
        )
    return course


def validate_parts(cfg: DictConfig) -> None:
    """Raises ValueError for settings and parts of a generator that fit no latents.

    The parts are built on the meta device, for a stand-in of latents that every patch size divides.
    """
    build_training_config(cfg)
    side = 2 * int(cfg.generator.backbone.get("patch_size", 1))
    generator = build_generator(cfg, LatentSpec(side * side, 4, (side, side)), 1, device="meta")
    has_guide = bool(cfg.guidance.get("guide"))  # which has latents of its own: `validate_cell` checks it
    guidance = Unguided() if has_guide else build_guidance(cfg, generator)
    generator.check(build_sampler(cfg), guidance)


def validate_cell(cfg: DictConfig, latent: LatentSpec, num_classes: int, registry: Registry = Registry()) -> None:
    """Raises ValueError, with what to change, unless a generator's parts, sampler and guidance fit these latents."""
    if is_trained(cfg.generator):
        validate_stats(cfg, latent.channels)
    generator, sampler = build_generator(cfg, latent, num_classes, device="meta"), build_sampler(cfg)
    generator.check(sampler, build_guidance(cfg, generator, registry))
    validate_token_losses(cfg, generator, registry)
    if is_trained(cfg.generator):
        validate_forward_mode(cfg, generator)
    warn_of_small_latents(latent, {"times": getattr(generator.objective, "times", None), "sampler": sampler})
    start = resolve_init(cfg, "generator", registry) if is_trained(cfg.generator) else None
    if start is not None:
        start.fitting(generator.backbone, start_tensors(start.load()))


def validate_forward_mode(cfg: DictConfig, generator: Generator) -> None:
    """Raises ValueError where an objective with a Jacobian-vector product is trained in a way that has none."""
    ways = {
        "trainer.compile=true": cfg.trainer.compile,
        "generator.backbone.checkpointing=true": cfg.generator.backbone.get("checkpointing"),
        "trainer.strategy=fsdp": cfg.trainer.strategy == "fsdp",
    }
    given = [way for way, chosen in ways.items() if chosen]
    if given and getattr(generator.objective, "forward_mode", False):
        name = type(generator.objective).__name__
        raise ValueError(
            f"{name} differentiates the network in forward mode, which {given[0]} does not support. Leave it out, or "
            "choose objective=flow_matching."
        )


def warn_of_small_latents(latent: LatentSpec, parts: Mapping[str, object]) -> None:
    """Logs a warning where the shift of a part is by the dimension and these latents have theirs turned round."""
    keys = [f"{name}.shift" for name, part in parts.items() if getattr(part, "shift", None) == DIMENSION]
    num_numbers = latent.num_tokens * latent.channels
    if keys and num_numbers < REFERENCE:
        log.warning(
            "%s=dimension moves the times of latents of %d numbers towards the data, by %.3g. The rule is for %d "
            "numbers and more. Set %s=1.0 to leave times as they are.",
            *(keys[0], num_numbers, dimension_shift(num_numbers), REFERENCE, keys[0]),
        )


def build_generator(cfg: DictConfig, latent: LatentSpec, num_classes: int, *, device: str = "cpu") -> Generator:
    """The untrained generator of a config, on latents whose statistics are not set yet."""
    validate_types(cfg.generator.backbone)
    facts = runtime_keywords(cfg, latent, num_classes)
    with torch.device(device):
        backbone = instantiate(cfg.generator.backbone, **facts)
    objective, normaliser = instantiate(cfg.objective), Normalizer(latent.channels)
    return Generator(
        backbone=backbone, objective=objective, normaliser=normaliser, class_dropout=cfg.generator.class_dropout
    )


def build_normalizer(planned: GeneratorPlan) -> Normalizer:
    """The scale at which latents are learned: by their measured statistics, unless the config gives others."""
    latents = planned.latents
    if planned.stats is None:
        return Normalizer.from_stats(latents.mean, latents.std, channels=latents.latent.channels)
    return planned.stats.normalizer(latents.latent.channels)


def runtime_keywords(cfg: DictConfig, latent: LatentSpec, num_classes: int) -> dict[str, Any]:
    """Returns the keywords of a backbone that only the run knows. Raises ValueError where its yaml sets them too."""
    objective = instantiate(cfg.objective)
    facts = {
        "latent": latent,
        "num_classes": num_classes,
        "has_null_class": cfg.generator.class_dropout > 0,
        "learned_variance": objective.learned_variance,
    }
    if getattr(objective, "second_time", False):
        if "second_time" not in parameter_names(cfg.generator.backbone._target_):
            raise ValueError(
                f"{type(objective).__name__} needs a backbone with a second time, and "
                f"{cfg.generator.backbone._target_.rpartition('.')[2]} takes none. Choose backbone=dit, lightningdit "
                "or ditdh."
            )
        facts["second_time"] = True
    given = sorted(facts.keys() & set(cfg.generator.backbone))
    if given:
        raise ValueError(
            f"There is no config key generator.backbone.{given[0]}: "
            "a backbone is told it by the latents and the objective."
        )
    return facts


def build_guidance(
    cfg: DictConfig,
    generator: Generator,
    registry: Registry = Registry(),
    *,
    tokenizer_key: str | None = None,  # the content key of the tokenizer whose latents it makes, where known
    has_statistics: bool = False,  # whether the generator has those of its latents
    node: DictConfig | None = None,  # a guidance in place of the config's
) -> Guidance:
    """Returns the configured guidance; a guide is the artifact of another generator.

    Raises ValueError for a guide that is missing, or of other latents: of another shape or tokenizer, or learned at
    another scale.
    """
    node = cfg.guidance if node is None else node
    if "guide" not in node:
        return instantiate(node)
    path = node.guide
    if path is None:
        raise ValueError(
            "This guidance leads away from a weaker generator, and none is given. "
            "Say guidance.guide=ARTIFACT, the folder of one, "
            "or choose guidance=none or guidance=cfg."
        )
    guide = store.load(path, registry=registry)
    if not isinstance(guide, Generator):
        raise ValueError(f"{path} is a {type(guide).__name__}. A guide must be a generator.")
    ours, theirs = generator.backbone.latent, guide.backbone.latent
    if ours != theirs:
        raise ValueError(
            f"The guide {path} makes {theirs.num_tokens} tokens of {theirs.channels} channels, other than {ours}. "
            "Choose another."
        )
    validate_guide(cfg, tokenizer_key)
    if has_statistics and not same_scale(generator.require_normalizer(), guide.require_normalizer()):
        raise ValueError(
            f"The guide {path} learned its latents at another scale: with other means and deviations of channels than "
            "the generator. Choose a guide that was trained on the same latents and with the same generator.stats."
        )
    return instantiate(node, guide=guide.field())


def validate_guide(cfg: DictConfig, tokenizer_key: str | None) -> None:
    """Raises ValueError for a guide, if there is one, of the latents of another tokenizer, where both are known."""
    path = cfg.guidance.get("guide")
    if path is None or tokenizer_key is None:
        return
    made_on = store.read_manifest(hub.local(path)).get("upstream", {}).get("tokenizer")
    if made_on is not None and made_on != tokenizer_key:
        raise ValueError(
            f"The guide {path} makes latents of a tokenizer with the content key {str(made_on)[:16]}, and the "
            f"generator those of {tokenizer_key[:16]}. Choose a guide that was trained on the same tokenizer."
        )


def same_scale(first: Normalizer, second: Normalizer) -> bool:
    """Whether two normalizers have the same statistics up to rounding, in units of the deviations."""
    shift = ((first.mean - second.mean.to(first.mean)) / first.std).abs().max()
    ratio = (second.std.to(first.std) / first.std - 1).abs().max()
    return bool(shift < ROUNDING and ratio < ROUNDING)


def build_sampler(cfg: DictConfig, num_steps: int | None = None) -> Sampler:
    """The configured sampler, of so many steps; None: of the configured number.

    Raises ValueError for a number of steps where the sampler's yaml has none.
    """
    if num_steps is None:
        return instantiate(cfg.sampler)
    if "num_steps" not in cfg.sampler:
        raise ValueError(
            f"job.steps names {num_steps} steps, and this sampler has no setting num_steps. "
            "Set job.steps=[null], or choose another, such as sampler=heun."
        )
    return instantiate(cfg.sampler, num_steps=num_steps)
