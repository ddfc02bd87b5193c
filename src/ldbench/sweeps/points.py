"""The points of a sweep: each composed and checked as a start of its own would be, before any begins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.config_loader import ConfigLoader
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ldbench import config, entry
from ldbench.core.files import digest

if TYPE_CHECKING:
    from ldbench.plan import Plan

WITHOUT_TOKENIZER = ("seed", "jobs", "job", "latents", "protocol", "force", "callbacks", "logger")  # besides a generator's: of no plan of a tokenizer


@dataclass(frozen=True)
class Point:
    """One config of a sweep."""

    overrides: Sequence[str]  # all of its own words
    label: str  # those words in which it differs from other points
    tokenizer: str | None = None  # the identity of the tokenizer that it needs; None where it needs none
    tokenizer_name: str = ""
    wants_latents: bool = False


@dataclass(frozen=True)
class Composed:
    """The config of a point, without Hydra's part."""

    label: str
    cfg: DictConfig
    searchpath: Sequence[str]


def checked(loader: ConfigLoader, master: DictConfig, batch: Sequence[Sequence[str]]) -> list[Point]:
    """The points of a batch of overrides. Raises ValueError with every mistake that an ordinary start would tell of any of them."""
    labels = labels_of(batch)
    faults: dict[str, list[str]] = {}  # sentence -> the points that it is of
    composed = []
    for label, overrides in zip(labels, batch, strict=True):
        try:
            composed.append(compose(loader, master, label, overrides))
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            faults.setdefault(config.sentence(error, master.hydra.job.config_name, overrides), []).append(label)
    refuse(faults, len(batch))
    points, known = [], {}
    with config.unchanging():
        for one, overrides in zip(composed, batch, strict=True):
            try:
                points.append(point_of(one, overrides, known))
            except (HydraException, OmegaConfBaseException, ValueError, ArithmeticError, OSError) as error:
                faults.setdefault(config.sentence(error), []).append(one.label)
    refuse(faults, len(batch))
    return points


def refuse(faults: Mapping[str, Sequence[str]], count: int) -> None:
    """Raises ValueError with all sentences, each with the points that it is of, if there are any."""
    if faults:
        wrong = len({label for labels in faults.values() for label in labels})
        told = "\n".join(f"\n{sentence}\n" + "\n".join(f"  in {label}" for label in labels) for sentence, labels in faults.items())
        raise ValueError(f"Nothing was begun: of {count} points of this sweep, {wrong} cannot be.\n{told}")


def labels_of(batch: Sequence[Sequence[str]]) -> list[str]:
    """The words of each point that not all points have; of a single point, all."""
    common = set.intersection(*map(set, batch)) if len(batch) > 1 else set()
    return [" ".join(word for word in overrides if word not in common) or "this point" for overrides in batch]


def compose(loader: ConfigLoader, master: DictConfig, label: str, overrides: Sequence[str]) -> Composed:
    """The config of one point. Raises what Hydra raises where it does not compose."""
    whole = loader.load_sweep_config(master, list(overrides))
    searchpath = config.searchpath_of(whole.hydra.runtime.config_sources)
    config.check_protocol(whole.hydra.runtime.choices, searchpath)
    cfg = config.without_hydra(whole)
    check_tasks(master.hydra.launcher, cfg)
    return Composed(label, cfg, searchpath)


def check_tasks(launcher: DictConfig, cfg: DictConfig) -> None:
    """Raises ValueError where SLURM would start another number of processes than share a training."""
    if not str(launcher.get("_target_")).endswith(entry.SLURM):
        return
    for key, said in (("tasks_per_node", "trainer.devices"), ("nodes", "trainer.num_nodes")):
        wanted = OmegaConf.select(cfg, said)
        if wanted is not None and launcher[key] != wanted:
            raise ValueError(
                f"hydra.launcher.{key}={launcher[key]} starts other processes than {said}={wanted} has share a training. "
                f"Say {said}={launcher[key]}, or hydra/launcher=slurm, which follows the trainer; a sweep over {said} needs a launch for each."
            )


def point_of(one: Composed, overrides: Sequence[str], known: dict[str, tuple[str, Any]]) -> Point:
    """What a point needs, after the checks of an ordinary start; `known` are the tokenizers of points before it, which it adds to.

    Raises ValueError for a config whose parts do not fit.
    """
    from ldbench import cells, pipeline  # torch is loaded here: mistakes in words need not wait for it

    cfg, searchpath = one.cfg, one.searchpath
    asked = pipeline.asked_of(cfg, searchpath)
    pipeline.check(cfg, asked, searchpath)
    if not asked.with_tokenizer:
        return Point(overrides, one.label)
    key = digest(described(cfg))
    if key not in known:  # its data are opened, which may take minutes
        known[key] = tokenizer_of(one)
    name, planned = known[key]
    if planned is not None and asked.with_generator:
        cells.check_cell(cfg, searchpath, planned.latent, planned.data)
    wants_latents = asked.with_generator or bool(pipeline.wanted_latents(asked.jobs))
    return Point(overrides, one.label, key if planned is None else str(planned.folder), name, wants_latents)


def tokenizer_of(one: Composed) -> tuple[str, "Plan | None"]:
    """The name of the tokenizer of a config, and its plan where it is to be trained. Raises ValueError where it could not begin."""
    from ldbench import official, pipeline, plan, sources, weights

    cfg = one.cfg
    if "tokenizer" in pipeline.trained_groups(cfg, with_generator=False):
        planned = plan.make_plan(cfg, one.searchpath)
        return planned.name, planned
    if "path" in list(cfg.tokenizer):
        return sources.stored(cfg, one.searchpath).name, None
    official.entry(cfg.tokenizer.name, "tokenizer")
    weights.locate(cfg.tokenizer.weights)
    plan.make_data(cfg, one.searchpath)
    return cfg.tokenizer.name, None


def described(cfg: DictConfig) -> dict[str, Any]:
    """All of a config that its tokenizer could depend on, and where it is kept."""
    from ldbench.plan import GENERATION, plain

    return {key: plain(cfg[key]) if OmegaConf.is_config(cfg[key]) else cfg[key] for key in cfg if key not in (*WITHOUT_TOKENIZER, *GENERATION)}
