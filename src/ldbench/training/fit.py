"""One task under the one trainer, from the last checkpoint there is: what the trainings of tokenizers and generators have in common."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch.utils.data import DataLoader, Dataset

from ldbench.config.components import instantiate, parameter_names, required_parameters, validate_types
from ldbench.io.files import add_path_to_errors
from ldbench.runtime import launcher
from ldbench.runtime.device import matmul_precision
from ldbench.runtime.process_group import is_worker_rank
from ldbench.tracking import wandb_runs
from ldbench.tracking.wandb_runs import Training
from ldbench.training import checkpoints
from ldbench.training.base_module import ManualOptimizationModule
from ldbench.training.batch_sampler import BatchStream
from ldbench.training.callbacks import Checkpoint
from ldbench.training.trainer import build as build_trainer
from ldbench.training.trainer import csv_logger

log = logging.getLogger(__name__)

CALLBACK_FACTS = (
    "folder",
    "stage",
    "data",
    "sampler",
    "guidance",
    "noise_of",
    "picture_of",
)  # that any training may have


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """A training's number of torch threads. Afterwards this, and whether only deterministic kernels are taken, are what they were."""
    before, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(deterministic)


def build_callbacks(nodes: Mapping[str, Any], facts: Mapping[str, Any]) -> list[Any]:
    """The callbacks of a training, each handed the facts that it asks for. Those that ask for what this training does not have stay out.

    Raises ValueError for a callback that asks for what no training has.
    """
    found = []
    for name, node in nodes.items():
        asked = set(required_parameters(node["_target_"])) - set(node)
        for unknown in sorted(asked - set(CALLBACK_FACTS)):
            known = ", ".join(CALLBACK_FACTS)
            raise ValueError(
                f"callbacks.{name} needs {unknown}: give callbacks.{name}.{unknown}. It is given: {known}."
            )
        if asked <= facts.keys():
            found.append(instantiate(node, **{fact: facts[fact] for fact in asked}))
    return sorted(
        found, key=lambda callback: isinstance(callback, Checkpoint)
    )  # what belongs to a step is done before the step is kept


@contextmanager
def logged(settings: DictConfig, *, run: Path, training: Training) -> Iterator[list[Any]]:
    """The loggers of a training; none in a process that follows another. What they have open is ended, whatever happens."""
    failed = True
    try:
        yield [] if is_worker_rank() else make_loggers(settings, run=run, training=training)
        failed = False
    finally:
        wandb_runs.finish(failed=failed)


def make_loggers(settings: DictConfig, *, run: Path, training: Training) -> list[Any]:
    """The CSV log, and the logger that the config asks for, which is handed the facts that its constructor knows."""
    if not settings:
        return [csv_logger(run)]
    validate_types(settings)
    facts = {"save_dir": str(run), "name": training.artifact, "version": training.digest[:16], "training": training}
    known = set(parameter_names(settings["_target_"])) - set(settings)
    return [
        csv_logger(run),
        instantiate(settings, **{fact: facts[fact] for fact in sorted(facts.keys() & known)}),
    ]


def fit_module(
    task: ManualOptimizationModule,
    items: Dataset,
    *,
    settings: DictConfig,  # of the trainer
    callbacks: Sequence[Any],
    loggers: Sequence[Any],
    run: Path,
    count_passes: bool,  # whether items of a later pass over the data are drawn anew
    collate: Callable[[Any], Any] | None = None,
    resident: Callable[[torch.device], Dataset]
    | None = None,  # the items held on a device: read there, and by no workers
) -> None:
    """Trains a task to the end of its phase."""
    stage: Any = task.stage
    launcher.spawn_ranks(settings.devices * settings.num_nodes)
    trainer = build_trainer(
        accelerator=settings.accelerator,
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        strategy=settings.strategy,
        precision=settings.precision,
        deterministic=settings.deterministic,
        callbacks=callbacks,
        loggers=loggers,
    )
    stream = BatchStream(
        num_images=len(items),  # type: ignore[arg-type]
        batch_size=stage.batch_size,
        num_batches=stage.max_steps * stage.accumulate,
        seed=task.seed,
        start=lambda: task.batches,
        rank=trainer.global_rank,
        world=trainer.world_size,
        overfit_batches=settings.overfit_batches,
        count_passes=count_passes,
    )
    device = trainer.strategy.root_device
    reading = {"num_workers": settings.workers, "pin_memory": device.type == "cuda"} if resident is None else {}
    loader = DataLoader(
        items if resident is None else resident(device), batch_sampler=stream, collate_fn=collate, **reading
    )
    checkpoint = checkpoints.newest_readable(checkpoints.newest(run, stage.name))
    if checkpoint is not None:
        log.info("Going on from %s", checkpoint)
    try:
        with add_path_to_errors(run), matmul_precision(settings.precision):
            trainer.fit(task, loader, ckpt_path=checkpoint, weights_only=True)
    except RuntimeError as error:
        launcher.await_watcher(error)
        raise
    except SystemExit:  # how Lightning answers Ctrl-C and SIGTERM
        raise KeyboardInterrupt from None
