"""From a config to artifacts and records: what exists is reused, what is missing is built or measured."""

from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path

import torch
from omegaconf import DictConfig

from ldbench import artifacts, config
from ldbench.cells import check_cell, check_generator, is_trained, obtain_generator
from ldbench.comparing import compare, refuse_in_training, starts_from_records
from ldbench.generator_plan import is_chosen
from ldbench.measuring import check_job, check_protocol, check_weights, measure, needs_generator
from ldbench.plan import check_keys, check_names, check_trainer, plain
from ldbench.results.protocol import Protocol
from ldbench.sources import obtain
from ldbench.starting import check_start
from ldbench.tasks.processes import is_child


def train(cfg: DictConfig, searchpath: Sequence[str] = ()) -> Path:
    """Obtains the configured tokenizer, and the generator of its latents where one is chosen, and makes the configured measurements.

    Whatever is there already, or known, is reused. Returns the folder of the generator's artifact, or the tokenizer's where there is none.
    Raises ValueError, before any work begins, for a config whose parts do not fit.
    """
    refuse_in_training(list(cfg.jobs.values()))
    chosen = is_chosen(cfg)
    return run_jobs(cfg, [node for node in cfg.jobs.values() if chosen or not needs_generator(node)], searchpath, with_generator=chosen)


def run(cfg: DictConfig, searchpath: Sequence[str] = ()) -> Path:
    """Makes the configured measurement unless it is known, of a generator where the job is of one. Returns and raises as `train`.

    A job that starts from records obtains nothing; the folder of records is returned.
    """
    check_job(cfg.job, protocol_of(cfg, searchpath), searchpath)
    if starts_from_records(cfg.job):
        return compare(cfg)
    needed = needs_generator(cfg.job)
    if needed and not is_chosen(cfg):
        raise ValueError("This job is of a generator, and none is chosen. Say generator=sit, or another that --help lists.")
    return run_jobs(cfg, [cfg.job], searchpath, with_generator=needed)


def run_jobs(cfg: DictConfig, jobs: Sequence[DictConfig], searchpath: Sequence[str], *, with_generator: bool) -> Path:
    """Obtains what is measured and makes the measurements that are not known yet."""
    check_keys(cfg)
    check_names(cfg)
    check_trainer(cfg)
    protocol = protocol_of(cfg, searchpath)
    for node in jobs:
        check_job(node, protocol, searchpath)
    check_protocol(protocol, searchpath)
    check_weights(jobs, protocol, searchpath)
    if is_chosen(cfg):
        check_generator(cfg, searchpath)
    check_start(cfg, trained_groups(cfg, with_generator=with_generator), searchpath)
    torch.set_num_threads(cfg.trainer.threads)
    obtained = obtain(cfg, searchpath, check=partial(check_cell, cfg, searchpath) if with_generator else None)
    generator = obtain_generator(cfg, obtained, searchpath) if with_generator else None
    if not is_child():
        for node in jobs:
            measured = generator if generator is not None and needs_generator(node) else obtained
            with artifacts.building_lock(Path(cfg.paths.records) / measured.name):  # of two at once, one measures
                measure(cfg, obtained, generator, node, protocol, searchpath)
    return obtained.folder if generator is None else generator.folder


def trained_groups(cfg: DictConfig, *, with_generator: bool) -> list[str]:
    """The groups of what would be trained here: neither artifacts nor released weights."""
    tokenizer = ["tokenizer"] if "path" not in list(cfg.tokenizer) and cfg.tokenizer.weights is None else []
    return tokenizer + (["generator"] if with_generator and is_trained(cfg) else [])


def protocol_of(cfg: DictConfig, searchpath: Sequence[str] = ()) -> Protocol:
    """The configured protocol; `default` for data that have none of their own."""
    node = cfg.protocol if "protocol" in cfg else config.option("protocol", "default", searchpath)
    known = [field.name for field in fields(Protocol)]
    for key in node.keys() - set(known):
        raise ValueError(f"There is no config key protocol.{key}.{config.nearest(str(key), known)}")
    return Protocol(**plain(node))
