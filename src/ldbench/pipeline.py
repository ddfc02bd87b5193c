"""From a config to artifacts and records: what exists is reused, what is missing is built or measured."""

from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path

import torch
from omegaconf import DictConfig

from ldbench import artifacts, config
from ldbench.cells import check_cell, check_generator, is_trained, obtain_generator
from ldbench.facts import Measured, needs_generator, needs_tokenizer, takes_generator
from ldbench.generator_plan import is_chosen
from ldbench.measuring import check_job, check_protocol, check_weights, measure
from ldbench.plan import check_keys, check_names, check_trainer, make_data, plain
from ldbench.results.protocol import Protocol
from ldbench.sources import obtain
from ldbench.starting import check_start
from ldbench.tasks.processes import is_child


def train(cfg: DictConfig, searchpath: Sequence[str] = ()) -> Path:
    """Obtains the configured tokenizer, and the generator of its latents where one is chosen, and makes the configured measurements.

    Whatever is there already, or known, is reused. Returns the folder of the generator's artifact, or the tokenizer's where there is none.
    Raises ValueError, before any work begins, for a config whose parts do not fit.
    """
    chosen = is_chosen(cfg)
    return run_jobs(cfg, [node for node in cfg.jobs.values() if chosen or not needs_generator(node)], searchpath, with_generator=chosen)


def run(cfg: DictConfig, searchpath: Sequence[str] = ()) -> Path:
    """Makes the configured measurement unless it is known, of a generator where the job is of one. Returns and raises as `train`."""
    check_job(cfg.job, protocol_of(cfg, searchpath), searchpath)
    needed = needs_generator(cfg.job)
    if needed and not is_chosen(cfg):
        raise ValueError("This job is of a generator, and none is chosen. Say generator=sit, or another that --help lists.")
    taken = is_chosen(cfg) and takes_generator(cfg.job)
    return run_jobs(cfg, [cfg.job], searchpath, with_generator=taken, with_tokenizer=needs_tokenizer(cfg.job))


def run_jobs(
    cfg: DictConfig,
    jobs: Sequence[DictConfig],
    searchpath: Sequence[str],
    *,
    with_generator: bool,
    with_tokenizer: bool = True,
) -> Path:
    """Obtains what is measured and makes the measurements that are not known yet. Returns the folder of the last thing built, or of records."""
    check_keys(cfg)
    check_names(cfg)
    check_trainer(cfg)
    check_logger(cfg)
    protocol = protocol_of(cfg, searchpath)
    for node in jobs:
        check_job(node, protocol, searchpath)
    check_protocol(protocol, searchpath)
    check_weights(jobs, protocol, searchpath)
    if is_chosen(cfg):
        check_generator(cfg, searchpath)
    torch.set_num_threads(cfg.trainer.threads)
    if with_tokenizer:
        check_start(cfg, trained_groups(cfg, with_generator=with_generator), searchpath)
        obtained = obtain(cfg, searchpath, check=partial(check_cell, cfg, searchpath) if with_generator else None)
        measured = Measured(obtained.data, obtained, obtain_generator(cfg, obtained, searchpath) if with_generator else None)
    else:
        measured = Measured(make_data(cfg, searchpath))
    if not is_child():
        for node in jobs:
            asked = measured.asked(node)
            with artifacts.building_lock(Path(cfg.paths.records) / asked.name):  # of two at once, one measures
                measure(cfg, asked, node, protocol, searchpath)
    return list(measured.artifacts.values())[-1].folder if measured.artifacts else Path(cfg.paths.records)


def check_logger(cfg: DictConfig) -> None:
    """Raises ValueError where the configured logger says that it could not begin."""
    if cfg.logger and not is_child():
        logger = config.find(cfg.logger._target_)
        if hasattr(logger, "check"):  # ours: others take keys that no signature tells
            known = config.parameters(cfg.logger._target_)
            for key in cfg.logger.keys() - {*known, "_target_"}:
                raise ValueError(f"There is no config key logger.{key}.{config.nearest(str(key), known)}")
            config.check_types(cfg.logger)
            logger.check(plain(cfg.logger))


def trained_groups(cfg: DictConfig, *, with_generator: bool) -> list[str]:
    """The groups of what would be trained here: neither artifacts nor released weights."""
    return [kind for kind in ("tokenizer", "generator") if (kind == "tokenizer" or with_generator) and is_trained(cfg, kind)]  # type: ignore[arg-type]


def protocol_of(cfg: DictConfig, searchpath: Sequence[str] = ()) -> Protocol:
    """The configured protocol; `default` for data that have none of their own."""
    node = cfg.protocol if "protocol" in cfg else config.option("protocol", "default", searchpath)
    known = [field.name for field in fields(Protocol)]
    for key in node.keys() - set(known):
        raise ValueError(f"There is no config key protocol.{key}.{config.nearest(str(key), known)}")
    return Protocol(**plain(node))
