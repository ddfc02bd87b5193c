"""What the trainer's settings say, and which numbers depend on it."""

from typing import Any

from omegaconf import DictConfig

# settings that numbers depend on
NUMERIC = ("devices", "precision", "threads", "compile", "limit_steps", "overfit_batches")
SHARED = ("num_nodes", "adaptive")  # and those on which only numbers of several processes do
DISPLAY = ("accelerator", "strategy", "workers", "resident", "deterministic", "log_every")  # the others
LEAST = {
    "devices": 1,
    "num_nodes": 1,
    "threads": 1,
    "workers": 0,
    "log_every": 1,
    "overfit_batches": 0,
    "limit_steps": 0,
}
SHARING_REVISION = (
    1  # of how several processes share a batch; raised when their numbers change, and those of one do not
)


def validate_trainer(cfg: DictConfig) -> None:
    """Raises ValueError for trainer settings that nothing reads, that are no numbers, or too small."""
    known = (*NUMERIC, *SHARED, *DISPLAY)
    for key in sorted(cfg.trainer.keys() - set(known)):
        raise ValueError(f"There is no config key trainer.{key}. Known: {', '.join(sorted(known))}.")
    for key, least in LEAST.items():
        value = cfg.trainer[key]
        if not isinstance(value, int) and not (key == "limit_steps" and value is None):
            raise ValueError(f"trainer.{key} must be a whole number, got {value!r}.")
        if value is not None and value < least:
            raise ValueError(f"trainer.{key} must be at least {least}, got {value}.")
    if not isinstance(cfg.trainer.resident, bool):
        raise ValueError(f"trainer.resident must be true or false, got {cfg.trainer.resident!r}.")
    if cfg.trainer.adaptive not in ("global", "local"):
        raise ValueError(f"Unknown trainer.adaptive {cfg.trainer.adaptive!r}. Choose global or local.")


def world_size(cfg: DictConfig) -> int:
    """How many processes share a training."""
    return cfg.trainer.devices * cfg.trainer.num_nodes


def numeric_settings(cfg: DictConfig) -> dict[str, Any]:
    """Returns the trainer's part of a recipe; how a batch is shared is in it if several processes share it."""
    found = {key: cfg.trainer[key] for key in NUMERIC}
    if world_size(cfg) == 1:
        return found
    return found | {"sharing": {"revision": SHARING_REVISION, **{key: cfg.trainer[key] for key in SHARED}}}
