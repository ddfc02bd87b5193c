"""From a config to artifacts and records: what exists is reused, what is missing is built or measured."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch
from omegaconf import DictConfig

from ldbench import artifacts, config
from ldbench.generator_plan import check_parts, is_chosen, make_course
from ldbench.measuring import check_job, check_protocol, check_weights, measure
from ldbench.plan import check_keys, check_names, check_trainer, plain
from ldbench.results.protocol import Protocol
from ldbench.sources import obtain
from ldbench.tasks.processes import is_child


def train(cfg: DictConfig, searchpath: Sequence[str] = ()) -> Path:
    """Trains or imports the configured tokenizer unless it is there, and makes the configured measurements unless they are known.

    Returns the artifact's folder. Raises ValueError, before any work begins, for a config whose parts do not fit.
    """
    return run_jobs(cfg, list(cfg.jobs.values()), searchpath)


def run(cfg: DictConfig, searchpath: Sequence[str] = ()) -> Path:
    """Makes the configured measurement unless it is known. Returns the artifact's folder; raises as `train`."""
    return run_jobs(cfg, [cfg.job], searchpath)


def run_jobs(cfg: DictConfig, jobs: Sequence[DictConfig], searchpath: Sequence[str]) -> Path:
    """Obtains the tokenizer and makes the measurements that are not known yet."""
    check_keys(cfg)
    check_names(cfg)
    check_trainer(cfg)
    refuse_cell(cfg, searchpath)
    for node in jobs:
        check_job(node)
    protocol = protocol_of(cfg, searchpath)
    check_protocol(protocol, searchpath)
    check_weights(protocol, searchpath)
    torch.set_num_threads(cfg.trainer.threads)
    obtained = obtain(cfg, searchpath)
    if not is_child():
        for node in jobs:
            with artifacts.building_lock(Path(cfg.paths.records) / obtained.name):  # of two at once, one measures
                measure(cfg, obtained, node, protocol, searchpath)
    return obtained.folder


def refuse_cell(cfg: DictConfig, searchpath: Sequence[str]) -> None:
    """Raises ValueError for a config with a generator: for parts that do not fit, or because no stored latents are there to train it on."""
    if not is_chosen(cfg):
        return
    make_course(cfg)
    check_parts(cfg, searchpath=searchpath)
    raise ValueError(
        f"The parts of generator={cfg.generator.name} fit, but nothing would train it: this command makes tokenizers, and cells of both come with "
        "the latent store. Leave generator=... out; ldbench.generator_training.obtain trains a generator on latents in memory."
    )


def protocol_of(cfg: DictConfig, searchpath: Sequence[str] = ()) -> Protocol:
    """The configured protocol; `default` for data that have none of their own."""
    node = cfg.protocol if "protocol" in cfg else config.option("protocol", "default", searchpath)
    known = [field.name for field in fields(Protocol)]
    for key in node.keys() - set(known):
        raise ValueError(f"There is no config key protocol.{key}.{config.nearest(str(key), known)}")
    return Protocol(**plain(node))
