"""The points of a sweep: each composed and validated like a run of its own, before any of them starts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ldbench.config.compose import Registry, drop_hydra
from ldbench.config.error_messages import error_message

SLURM_LAUNCHER = ".SlurmLauncher"  # suffix of the launcher's target; its tasks share a training


@dataclass(frozen=True)
class SweepNeeds:
    """What a config needs that other points of its sweep may need as well."""

    tokenizer: str | None = None  # the identity of its tokenizer; None if it needs none
    tokenizer_name: str = ""
    latents: bool = False  # whether it reads latents of the training images


# of a config, its registry, and a cache of earlier points' tokenizers
Inspect = Callable[[DictConfig, Registry, dict[str, Any]], SweepNeeds]


@dataclass(frozen=True)
class Point:
    """One config of a sweep."""

    overrides: Sequence[str]
    label: str  # the overrides in which it differs from other points
    needs: SweepNeeds = SweepNeeds()


@dataclass(frozen=True)
class ComposedPoint:
    """The config of a point, without Hydra's settings."""

    label: str
    cfg: DictConfig
    registry: Registry


def build_points(
    loader: ConfigLoader, master: DictConfig, batch: Sequence[Sequence[str]], inspect: Inspect
) -> list[Point]:
    """The points of a batch of overrides. Raises ValueError with every mistake that an ordinary run of any reports."""
    labels = build_labels(batch)
    faults: dict[str, list[str]] = {}  # message -> labels of the points
    composed = []
    for label, overrides in zip(labels, batch, strict=True):
        try:
            composed.append(compose(loader, master, label, overrides))
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            message = error_message(error, master.hydra.job.config_name, overrides, Registry().compose)
            faults.setdefault(message, []).append(label)
    raise_faults(faults, len(batch))
    points: list[Point] = []
    known: dict[str, Any] = {}
    for one, overrides in zip(composed, batch, strict=True):
        try:
            points.append(Point(overrides, one.label, inspect(one.cfg, one.registry, known)))
        except (HydraException, OmegaConfBaseException, ValueError, ArithmeticError, OSError) as error:
            faults.setdefault(error_message(error), []).append(one.label)
    raise_faults(faults, len(batch))
    return points


def raise_faults(faults: Mapping[str, Sequence[str]], num_points: int) -> None:
    """Raises ValueError with all messages, each with the labels of its points, if there are any."""
    if faults:
        num_invalid = len({label for labels in faults.values() for label in labels})
        messages = "\n".join(
            f"\n{message}\n" + "\n".join(f"  in {label}" for label in labels) for message, labels in faults.items()
        )
        raise ValueError(
            f"Nothing was started: {num_invalid} of the {num_points} points of this sweep are invalid.\n{messages}"
        )


def build_labels(batch: Sequence[Sequence[str]]) -> list[str]:
    """The overrides of each point that not all points have; all overrides of a single point."""
    common = set.intersection(*map(set, batch)) if len(batch) > 1 else set()
    return [" ".join(text for text in overrides if text not in common) or "this point" for overrides in batch]


def compose(loader: ConfigLoader, master: DictConfig, label: str, overrides: Sequence[str]) -> ComposedPoint:
    """The config of one point. Raises Hydra's errors if it cannot be composed."""
    whole = loader.load_sweep_config(master, list(overrides))
    registry = Registry.from_sources(whole.hydra.runtime.config_sources)
    registry.validate_protocol(whole.hydra.runtime.choices)
    cfg = drop_hydra(whole)
    validate_slurm_tasks(master.hydra.launcher, cfg)
    return ComposedPoint(label, cfg, registry.with_data(cfg))


def validate_slurm_tasks(launcher: DictConfig, cfg: DictConfig) -> None:
    """Raises ValueError if SLURM would start another number of processes than share a training."""
    if not str(launcher.get("_target_")).endswith(SLURM_LAUNCHER):
        return
    for key, trainer_key in (("tasks_per_node", "trainer.devices"), ("nodes", "trainer.num_nodes")):
        expected = OmegaConf.select(cfg, trainer_key)
        if expected is not None and launcher[key] != expected:
            raise ValueError(
                f"hydra.launcher.{key}={launcher[key]} starts another number of processes than "
                f"{trainer_key}={expected}, which share a training. Set {trainer_key}={launcher[key]}, or "
                "hydra/launcher=slurm, which follows the trainer; "
                f"a sweep over {trainer_key} needs a separate launch for each value."
            )
