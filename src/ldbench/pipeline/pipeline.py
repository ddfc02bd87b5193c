"""From a config to artifacts and records: what exists is reused, what is missing is built or measured."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import torch
from omegaconf import DictConfig

from ldbench.artifacts import store
from ldbench.config.components import import_target
from ldbench.config.compose import Registry, cli_overrides, plain
from ldbench.config.error_messages import did_you_mean
from ldbench.pipeline.generator_plan import is_chosen
from ldbench.pipeline.get_generator import (
    check_cell,
    check_generator,
    is_trained,
    latents_for,
    make_encoder,
    obtain_generator,
)
from ldbench.pipeline.get_tokenizer import Obtained, obtain
from ldbench.pipeline.init_weights import check_start
from ldbench.pipeline.job_context import (
    EvaluationTarget,
    needs_generator,
    needs_tokenizer,
    required_inputs,
    takes_generator,
)
from ldbench.pipeline.measure import check_job, check_protocol, check_weights, measure
from ldbench.pipeline.measure_records import compare, refuse_in_training, starts_from_records
from ldbench.pipeline.tokenizer_plan import check_keys, check_names, make_data
from ldbench.pipeline.trainer_settings import check_trainer
from ldbench.results.protocol import Protocol
from ldbench.runtime import launcher
from ldbench.runtime.device import disable_tf32, validate_devices, validate_precision
from ldbench.runtime.memory import keep_freed_memory
from ldbench.runtime.process_group import is_worker_rank, validate_world_size
from ldbench.tracking.send_records import validate_logger


@dataclass(frozen=True)
class RunRequest:
    """What an entry point is asked for: measurements, under a protocol, of a cell, of a tokenizer, or of images alone."""

    jobs: Sequence[DictConfig]
    shared: Sequence[DictConfig]  # those of them that every cell of the tokenizer makes
    with_tokenizer: bool
    with_generator: bool
    protocol: Protocol


def train(cfg: DictConfig, registry: Registry = Registry()) -> Path:
    """Obtains the configured tokenizer, and the generator of its latents where one is chosen, and makes the configured measurements.

    Whatever is there already, or known, is reused. Returns the folder of the generator's artifact, or the tokenizer's where there is none.
    Raises ValueError, before any work begins, for a config whose parts do not fit.
    """
    return make(cfg, parse_request(cfg, registry), registry)


def run(cfg: DictConfig, registry: Registry = Registry()) -> Path:
    """Makes the configured measurement unless it is known, of a generator where the job is of one. Returns and raises as `train`.

    A job that starts from records obtains nothing; the folder of records is returned.
    """
    check_job(cfg.job, protocol_of(cfg, registry), registry)
    if starts_from_records(cfg.job):
        refuse_spoken(cfg.job, ("tokenizer", "generator"), "starts from records alone: those of paths.root")
        return compare(cfg)
    asked = parse_request(cfg, registry)
    if not asked.with_tokenizer:
        refuse_spoken(cfg.job, ("generator",), "is of images alone")  # a tokenizer's size may be that of the images
    return make(cfg, asked, registry)


def refuse_spoken(node: DictConfig, groups: Sequence[str], why: str) -> None:
    """Raises ValueError for words of the command line about what a job has no use for."""
    for word in cli_overrides():
        key = word.lstrip("+~").partition("=")[0].partition("@")[0]
        if key.partition(".")[0] in groups:
            raise ValueError(f"{word} has nothing to do: job {import_target(node._target_).name} {why}. Leave it out.")


def parse_request(cfg: DictConfig, registry: Registry = Registry()) -> RunRequest:
    """What a config asks for: of `run` its job; of `train` its jobs, those of a generator where one is chosen.

    Raises ValueError for a job of a generator where none is chosen.
    """
    protocol = protocol_of(cfg, registry)
    if "job" not in cfg:
        refuse_in_training(list(cfg.jobs.values()))
        chosen = is_chosen(cfg)
        jobs = [node for node in cfg.jobs.values() if chosen or not needs_generator(node)]
        shared = [node for node in jobs if not (chosen and takes_generator(node))]
        return RunRequest(jobs, shared, with_tokenizer=True, with_generator=chosen, protocol=protocol)
    check_job(cfg.job, protocol, registry)
    needed = needs_generator(cfg.job)
    if needed and not is_chosen(cfg):
        raise ValueError(
            "This job is of a generator, and none is chosen. Say generator=sit, or another that --help lists."
        )
    taken = is_chosen(cfg) and takes_generator(cfg.job)
    return RunRequest([cfg.job], [], with_tokenizer=needs_tokenizer(cfg.job), with_generator=taken, protocol=protocol)


def check(cfg: DictConfig, asked: RunRequest, registry: Registry = Registry()) -> None:
    """Raises ValueError for whatever can be told of a config without opening its data."""
    check_keys(cfg)
    check_names(cfg)
    check_trainer(cfg)
    validate_devices(cfg.trainer.accelerator, cfg.trainer.devices)
    validate_world_size(cfg.trainer.devices, cfg.trainer.num_nodes)
    validate_logger(cfg)
    for node in asked.jobs:
        check_job(node, asked.protocol, registry)
    for node in (*asked.jobs, *([cfg.latents] if is_chosen(cfg) else [])):
        if "precision" in node:
            validate_precision(node.precision, cfg.trainer.accelerator, key=node._get_full_key("precision"))
    check_protocol(asked.protocol, registry)
    check_weights(asked.jobs, asked.protocol, registry)
    if is_chosen(cfg):
        check_generator(cfg, registry)
    if asked.with_tokenizer:
        check_start(cfg, trained_groups(cfg, with_generator=asked.with_generator), registry)


def make(cfg: DictConfig, asked: RunRequest, registry: Registry = Registry()) -> Path:
    """Obtains what is measured and makes the measurements that are not known yet. Returns the folder of the last thing built, or of records."""
    begin(cfg, asked, registry)
    if asked.with_tokenizer:
        obtained = tokenizer_of(cfg, asked, registry)
        measured = EvaluationTarget(
            obtained.data, obtained, obtain_generator(cfg, obtained, registry) if asked.with_generator else None
        )
    else:
        measured = EvaluationTarget(make_data(cfg, registry))
    measure_each(cfg, measured, asked.jobs, asked.protocol, registry)
    return list(measured.artifacts.values())[-1].folder if measured.artifacts else Path(cfg.paths.records)


def begin(cfg: DictConfig, asked: RunRequest, registry: Registry) -> None:
    """Checks a config, as `check` does, and makes this process ready to work."""
    launcher.exit_with_parent()
    if is_worker_rank():
        logging.getLogger("ldbench").setLevel(logging.WARNING)  # what is done is told once
    check(cfg, asked, registry)
    torch.set_num_threads(cfg.trainer.threads)
    disable_tf32()
    keep_freed_memory()


def prepare(cfg: DictConfig, registry: Registry = Registry()) -> Path:
    """Makes what the cells of a tokenizer share: itself, the measurements of it that each would make, and the latents that they will want.

    Returns the folder of its artifact, and raises as `train`.
    """
    asked = parse_request(cfg, registry)
    begin(cfg, asked, registry)
    obtained = tokenizer_of(cfg, asked, registry)
    measure_each(cfg, EvaluationTarget(obtained.data, obtained), asked.shared, asked.protocol, registry)
    if is_worker_rank():
        return obtained.folder
    if asked.with_generator and is_trained(cfg):
        latents_for(cfg, obtained, registry)
    for split in wanted_latents(asked.jobs):
        make_encoder(cfg, obtained, registry).store(split)
    return obtained.folder


def tokenizer_of(cfg: DictConfig, asked: RunRequest, registry: Registry) -> Obtained:
    """The configured tokenizer; before it is trained, all that will be made of its latents is proved to fit them."""
    return obtain(cfg, registry, check=partial(check_cell, cfg, registry) if asked.with_generator else None)


def measure_each(
    cfg: DictConfig,
    measured: EvaluationTarget,
    jobs: Sequence[DictConfig],
    protocol: Protocol,
    registry: Registry,
) -> None:
    """Makes the measurements that are not known yet; of several processes that share a training, the first does."""
    if is_worker_rank():
        return
    for node in jobs:
        asked = measured.restricted_to_job(node)
        with store.building_lock(
            Path(cfg.paths.records) / asked.name, doing="measuring"
        ):  # of two at once, one measures
            measure(cfg, asked, node, protocol, registry)


def wanted_latents(jobs: Sequence[DictConfig]) -> list[str]:
    """The splits whose latents these jobs ask for by name."""
    asked = {fact for node in jobs for fact in required_inputs(node)}
    return [split for split, fact in (("train", "train_latents"), ("test", "heldout_latents")) if fact in asked]


def trained_groups(cfg: DictConfig, *, with_generator: bool) -> list[str]:
    """The groups of what would be trained here: neither artifacts nor released weights."""
    return [
        kind for kind in ("tokenizer", "generator") if (kind == "tokenizer" or with_generator) and is_trained(cfg, kind)
    ]  # type: ignore[arg-type]


def protocol_of(cfg: DictConfig, registry: Registry = Registry()) -> Protocol:
    """The configured protocol; `default` for data that have none of their own."""
    node = cfg.protocol if "protocol" in cfg else registry.option("protocol", "default")
    known = [field.name for field in fields(Protocol)]
    for key in node.keys() - set(known):
        raise ValueError(f"There is no config key protocol.{key}.{did_you_mean(str(key), known)}")
    return Protocol(**plain(node))
