"""What the trainer's settings say, and which numbers depend on it."""

from typing import Any

from omegaconf import DictConfig

# settings that numbers depend on
NUMERIC = ("devices", "precision", "threads", "compile", "limit_steps", "overfit_batches")
SHARED = ("num_nodes", "adaptive")  # and those on which only numbers of several processes do
DISPLAY = ("accelerator", "strategy", "workers", "resident", "deterministic", "log_every", "patience")  # the others
STRATEGIES = ("auto", "ddp", "fsdp")  # beside Lightning's other ones
SHARING_REVISION = (
    1  # of how several processes share a batch; raised when their numbers change, and those of one do not
)


def validate_trainer(cfg: DictConfig) -> None:
    """Raises ValueError for trainer settings that nothing reads, and for choices that do not exist."""
    known = (*NUMERIC, *SHARED, *DISPLAY)
    for key in sorted(cfg.trainer.keys() - set(known)):
        raise ValueError(f"There is no config key trainer.{key}. Known: {', '.join(sorted(known))}.")
    if cfg.trainer.adaptive not in ("global", "local"):
        raise ValueError(f"Unknown trainer.adaptive {cfg.trainer.adaptive!r}. Choose global or local.")
    if cfg.trainer.strategy not in STRATEGIES:
        from ldbench.training.trainer import strategy_names  # Lightning takes seconds to load

        if cfg.trainer.strategy not in (lightnings := strategy_names()):
            choices = ", ".join(dict.fromkeys((*STRATEGIES, *lightnings)))
            raise ValueError(f"Unknown trainer.strategy {cfg.trainer.strategy!r}. Choose one of {choices}.")


def world_size(cfg: DictConfig) -> int:
    """How many processes share a training."""
    return cfg.trainer.devices * cfg.trainer.num_nodes


def numeric_settings(cfg: DictConfig) -> dict[str, Any]:
    """Returns the trainer's part of a recipe; how a batch is shared is in it if several processes share it."""
    found = {key: cfg.trainer[key] for key in NUMERIC}
    if world_size(cfg) == 1:
        return found
    return found | {"sharing": {"revision": SHARING_REVISION, **{key: cfg.trainer[key] for key in SHARED}}}
