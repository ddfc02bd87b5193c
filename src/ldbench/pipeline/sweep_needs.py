"""What a point of a sweep requires, found by the checks of an ordinary start."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from ldbench import official
from ldbench.artifacts import weights
from ldbench.config.compose import Registry, plain
from ldbench.io.files import digest
from ldbench.pipeline import get_tokenizer, pipeline, tokenizer_plan
from ldbench.pipeline.generator_plan import validate_cell
from ldbench.pipeline.recipe import is_trained
from ldbench.pipeline.tokenizer_plan import GENERATION, Plan
from ldbench.sweeps.points import SweepNeeds

# keys on which no plan of a tokenizer depends, besides a generator's
WITHOUT_TOKENIZER = ("seed", "jobs", "job", "latents", "protocol", "force", "callbacks", "logger")


def inspect(cfg: DictConfig, registry: Registry, known: dict[str, tuple[str, Plan | None]]) -> SweepNeeds:
    """Returns what a config needs that other points may need too.

    `known` holds the tokenizers of earlier points; those found here are added to it.

    Raises ValueError for a config whose parts do not fit.
    """
    request = pipeline.parse_request(cfg, registry)
    pipeline.validate(cfg, request, registry)
    if not request.with_tokenizer:
        return SweepNeeds()
    key = digest(described(cfg))
    if key not in known:  # its data are opened, which may take minutes
        known[key] = tokenizer_of(cfg, registry)
    name, planned = known[key]
    if planned is not None and request.with_generator and is_trained(cfg.generator):
        validate_cell(cfg, planned.latent, planned.data.num_classes, registry)
    latents = request.with_generator or bool(pipeline.latent_splits_read(request.jobs))
    return SweepNeeds(key if planned is None else str(planned.folder), name, latents)


def tokenizer_of(cfg: DictConfig, registry: Registry) -> tuple[str, Plan | None]:
    """Returns the name of the tokenizer of a config, and its plan if it is to be trained.

    Raises ValueError for one that could not start.
    """
    if "tokenizer" in pipeline.groups_to_train(cfg, with_generator=False):
        planned = tokenizer_plan.plan_tokenizer(cfg, registry)
        return planned.name, planned
    if "path" in list(cfg.tokenizer):
        return get_tokenizer.open_artifact(cfg, registry)[0].name, None
    official.entry(cfg.tokenizer.name, "tokenizer")
    weights.locate(cfg.tokenizer.weights)
    tokenizer_plan.build_data(cfg, registry)
    return cfg.tokenizer.name, None


def described(cfg: DictConfig) -> dict[str, Any]:
    """All of a config that its tokenizer could depend on, and where it is kept."""
    return {
        str(key): plain(cfg[key]) if OmegaConf.is_config(cfg[key]) else cfg[key]
        for key in cfg
        if key not in (*WITHOUT_TOKENIZER, *GENERATION)
    }
