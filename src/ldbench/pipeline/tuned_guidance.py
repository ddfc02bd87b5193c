"""What a search over guidance varies: the guidance whose scale and interval it sets, and the generator's averages."""

import copy
from functools import partial

from omegaconf import DictConfig, flag_override

from ldbench.config.compose import Registry
from ldbench.core.generator import Generator
from ldbench.core.interfaces import Guidance
from ldbench.jobs._sampling_variants import SamplingVariants
from ldbench.pipeline.generator_plan import build_guidance, build_sampler
from ldbench.pipeline.recipe import is_trained
from ldbench.pipeline.trained_model import TrainedModel


def validate_search(cfg: DictConfig, registry: Registry = Registry()) -> None:
    """Raises ValueError for a generator whose guidance cannot be searched, before it is trained."""
    node = tuned_guidance(cfg, registry)
    if is_trained(cfg.generator) and not cfg.generator.class_dropout and "guide" not in node:
        raise ValueError(
            "job=guidance searches over classifier-free guidance, and generator.class_dropout=0 trains no network "
            "without labels. Set generator.class_dropout=0.1, or choose guidance=autoguidance."
        )


def tuned_guidance(cfg: DictConfig, registry: Registry = Registry()) -> DictConfig:
    """Returns the guidance whose scale and interval are searched: the configured one, or classifier-free guidance where
    that has no scale.
    """
    return cfg.guidance if "scale" in cfg.guidance else registry.option("guidance", "cfg")


def sampling_variants(
    cfg: DictConfig, model: TrainedModel, tokenizer_key: str | None, registry: Registry = Registry()
) -> SamplingVariants:
    """Returns what a generator can be sampled with: its averages, other numbers of steps, and other guidance.

    `tokenizer_key`: the content key of the tokenizer of its latents, where known.
    """
    exported = model.recipe.get("course", {}).get("exported_decay")

    def load(decay: float | None) -> Generator:
        return model.load_generator() if decay is None or decay == exported else model.load_average(decay)

    def guidance_of(generator: Generator, scale: float, low: float, high: float) -> Guidance:
        node = copy.deepcopy(tuned_guidance(cfg, registry))
        with flag_override(node, ["struct", "readonly"], [False, False]):
            node.update({"scale": scale, "low": low, "high": high})
        return build_guidance(cfg, generator, registry, tokenizer_key=tokenizer_key, has_statistics=True, node=node)

    return SamplingVariants(
        averages=(exported, *(decay for decay in model.averages if decay != exported)),
        load_generator=load,
        build_sampler=partial(build_sampler, cfg),
        build_guidance=guidance_of,
    )
