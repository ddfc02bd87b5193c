"""The points of a sweep: each composed and checked as a start of its own would be, before any begins."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ldbench.config.compose import Registry, drop_hydra
from ldbench.config.error_messages import error_message

SLURM_LAUNCHER = ".SlurmLauncher"  # the end of the name of the launcher whose tasks share a training


@dataclass(frozen=True)
class SweepNeeds:
    """What a config needs that other points of its sweep may need too."""

    tokenizer: str | None = None  # the identity of its tokenizer; None where it needs none
    tokenizer_name: str = ""
    latents: bool = False  # whether it reads latents of the training images


Inspect = Callable[
    [DictConfig, Registry, dict[str, Any]], SweepNeeds
]  # of a config, a search path, and a cache of earlier points' tokenizers


@dataclass(frozen=True)
class Point:
    """One config of a sweep."""

    overrides: Sequence[str]
    label: str  # those overrides in which it differs from other points
    needs: SweepNeeds = SweepNeeds()


@dataclass(frozen=True)
class Composed:
    """The config of a point, without Hydra's part."""

    label: str
    cfg: DictConfig
    registry: Registry


def checked(loader: ConfigLoader, master: DictConfig, batch: Sequence[Sequence[str]], inspect: Inspect) -> list[Point]:
    """The points of a batch of overrides. Raises ValueError with every mistake that an ordinary start would report of any of them."""
    labels = labels_of(batch)
    faults: dict[str, list[str]] = {}  # sentence -> the points that it is of
    composed = []
    for label, overrides in zip(labels, batch, strict=True):
        try:
            composed.append(compose(loader, master, label, overrides))
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            faults.setdefault(
                error_message(error, master.hydra.job.config_name, overrides, Registry().compose), []
            ).append(label)
    refuse(faults, len(batch))
    points: list[Point] = []
    known: dict[str, Any] = {}
    for one, overrides in zip(composed, batch, strict=True):
        try:
            points.append(Point(overrides, one.label, inspect(one.cfg, one.registry, known)))
        except (HydraException, OmegaConfBaseException, ValueError, ArithmeticError, OSError) as error:
            faults.setdefault(error_message(error), []).append(one.label)
    refuse(faults, len(batch))
    return points


def refuse(faults: Mapping[str, Sequence[str]], count: int) -> None:
    """Raises ValueError with all sentences, each with the points that it is of, if there are any."""
    if faults:
        wrong = len({label for labels in faults.values() for label in labels})
        told = "\n".join(
            f"\n{sentence}\n" + "\n".join(f"  in {label}" for label in labels) for sentence, labels in faults.items()
        )
        raise ValueError(f"Nothing was begun: of {count} points of this sweep, {wrong} cannot be.\n{told}")


def labels_of(batch: Sequence[Sequence[str]]) -> list[str]:
    """The words of each point that not all points have; of a single point, all."""
    common = set.intersection(*map(set, batch)) if len(batch) > 1 else set()
    return [" ".join(word for word in overrides if word not in common) or "this point" for overrides in batch]


def compose(loader: ConfigLoader, master: DictConfig, label: str, overrides: Sequence[str]) -> Composed:
    """The config of one point. Raises what Hydra raises where it does not compose."""
    whole = loader.load_sweep_config(master, list(overrides))
    registry = Registry.from_sources(whole.hydra.runtime.config_sources)
    registry.validate_protocol(whole.hydra.runtime.choices)
    cfg = drop_hydra(whole)
    check_tasks(master.hydra.launcher, cfg)
    return Composed(label, cfg, registry)


def check_tasks(launcher: DictConfig, cfg: DictConfig) -> None:
    """Raises ValueError where SLURM would start another number of processes than share a training."""
    if not str(launcher.get("_target_")).endswith(SLURM_LAUNCHER):
        return
    for key, said in (("tasks_per_node", "trainer.devices"), ("nodes", "trainer.num_nodes")):
        wanted = OmegaConf.select(cfg, said)
        if wanted is not None and launcher[key] != wanted:
            raise ValueError(
                f"hydra.launcher.{key}={launcher[key]} starts other processes than {said}={wanted} has share a training. "
                f"Say {said}={launcher[key]}, or hydra/launcher=slurm, which follows the trainer; a sweep over {said} needs a launch for each."
            )
