"""The statistics by which a generator's latents are normalized: measured, the tokenizer's own, or given ones.

`generator.stats` is null (a generator that is trained here: measured on its training latents; a released one: the
tokenizer's), `tokenizer`, a file such as latents_stats.pt, one scale, or [mean, std].
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ldbench.artifacts import hub, store, weights
from ldbench.config.compose import plain
from ldbench.core.latent_stats import LatentStats
from ldbench.official.load import as_latent_stats, released_latent_stats
from ldbench.pipeline.recipe import is_trained

OWN = "tokenizer"  # the word for the tokenizer's own statistics


def validate_stats(
    cfg: DictConfig,
    channels: int | None = None,  # of the latents, where they are known
) -> None:
    """Raises ValueError, before any work, for statistics that are none, of other channels, or unknown."""
    stats = configured_stats(cfg, tokenizer_stats(cfg) if uses_own(cfg) else None)
    if stats is not None and channels is not None:
        try:
            stats.normalizer(channels)
        except ValueError as error:
            raise ValueError(f"generator.stats={plain(cfg.generator)['stats']}: {error}") from error


def uses_own(cfg: DictConfig) -> bool:
    """Whether latents are normalized by the tokenizer's own statistics: by choice, or for released weights."""
    if "path" in cfg.generator:  # an artifact holds its statistics
        return False
    return cfg.generator.stats == OWN or (cfg.generator.stats is None and not is_trained(cfg.generator))


def configured_stats(cfg: DictConfig, own: LatentStats | None) -> LatentStats | None:
    """The statistics that a config asks for; None: measured ones. `own` are the tokenizer's.

    Raises ValueError for what are none, and where the tokenizer has none.
    """
    given = plain(cfg.generator).get("stats")
    if not uses_own(cfg):
        try:
            return None if given is None else as_latent_stats(given)
        except (ValueError, OSError) as error:
            raise ValueError(f"generator.stats={given}: {error}") from error
    if own is not None:
        return own
    others = (
        "generator.stats=latents_stats.pt, generator.stats=[MEAN,STD], or one scale, such as generator.stats=0.18215"
    )
    if given is None:
        raise ValueError(
            f"Released generators come without the statistics of their latents, and the tokenizer "
            f"{cfg.tokenizer.get('name', '')} states none. Set {others} for Stable Diffusion's latents."
        )
    reason = (
        "a tokenizer that is trained here has none: leave it out, and they are measured on its latents"
        if is_trained(cfg.tokenizer)
        else f"{cfg.tokenizer.get('name', 'this artifact')} states none. Leave it out to measure them, or set {others}"
    )
    raise ValueError(f"generator.stats={OWN} takes the tokenizer's own statistics, and {reason}.")


def tokenizer_stats(cfg: DictConfig) -> LatentStats | None:
    """The own statistics of the configured tokenizer, read before it is built. Raises ValueError for invalid ones."""
    if is_trained(cfg.tokenizer):
        return None
    if "path" in cfg.tokenizer:
        return store.latent_stats_of(store.read_config(hub.local(cfg.tokenizer.path)))
    way = cfg.tokenizer.get("normalization")
    return released_latent_stats(
        cfg.tokenizer.name, cfg.tokenizer.weights, {} if way is None else {"normalization": way}
    )


def describe_stats(cfg: DictConfig, own: LatentStats | None) -> Any:
    """What a generator's digest covers: None if they are measured, a file's content, or numbers."""
    given = plain(cfg.generator)["stats"]
    stats = configured_stats(cfg, own)
    if stats is None or isinstance(given, int | float):
        return given
    if uses_own(cfg):
        return {OWN: stats.to_dict()}
    return store.file_digest(weights.locate(Path(given))) if isinstance(given, str) else stats.to_dict()


def log_line(cfg: DictConfig, stats: LatentStats | None) -> str:
    """The sentence about the statistics that were used."""
    if stats is None:
        return "Latents are normalized by the measured mean and std of each channel."
    source = "the tokenizer's own statistics" if uses_own(cfg) else f"generator.stats={plain(cfg.generator)['stats']}"
    return f"Latents are normalized by {source}: {stats}."
