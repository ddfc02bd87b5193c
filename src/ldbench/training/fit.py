"""The fit of a training module: threads, callbacks, loggers, batches, and resuming from the last checkpoint."""

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
from ldbench.training.callbacks_overfit import OverfitReport
from ldbench.training.read_ahead import ReadAhead
from ldbench.training.trainer import build_trainer, csv_logger

log = logging.getLogger(__name__)

# the inputs that a callback's constructor may require; a training may lack some
CALLBACK_INPUTS = ("folder", "stage", "data", "sampler", "guidance", "noise_of", "picture_of")


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Within it, torch uses this many threads.

    Restores their number and the use of deterministic kernels afterwards.
    """
    before, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(deterministic)


def build_callbacks(nodes: Mapping[str, Any], inputs: Mapping[str, Any]) -> list[Any]:
    """The callbacks of a training, built with the inputs that they require;
    those that require others than `inputs` are left out.

    Raises ValueError for a callback that requires an input that no training has.
    """
    callbacks = []
    for name, node in nodes.items():
        required = set(required_parameters(node["_target_"])) - set(node)
        for unknown in sorted(required - set(CALLBACK_INPUTS)):
            known = ", ".join(CALLBACK_INPUTS)
            raise ValueError(
                f"callbacks.{name} requires {unknown}: set callbacks.{name}.{unknown}. It can receive: {known}."
            )
        if required <= inputs.keys():
            callbacks.append(instantiate(node, **{key: inputs[key] for key in required}))
    # a step is saved after all the others
    return sorted(callbacks, key=lambda callback: isinstance(callback, Checkpoint))


@contextmanager
def open_loggers(settings: Sequence[DictConfig], *, run: Path, training: Training) -> Iterator[list[Any]]:
    """The loggers of a training, finished at the end in any case; none in ranks other than 0."""
    failed = True
    try:
        if is_worker_rank():
            yield []
        else:
            yield [csv_logger(run), *(build_logger(node, run=run, training=training) for node in settings)]
        failed = False
    finally:
        wandb_runs.finish(failed=failed)


def build_logger(settings: DictConfig, *, run: Path, training: Training) -> Any:
    """A logger of the config, which receives those inputs that its constructor accepts."""
    validate_types(settings)
    inputs = {"save_dir": str(run), "name": training.artifact, "version": training.digest[:16], "training": training}
    accepted = set(parameter_names(settings["_target_"])) - set(settings)
    return instantiate(settings, **{key: inputs[key] for key in sorted(inputs.keys() & accepted)})


def fit_module(
    module: ManualOptimizationModule,
    items: Dataset,
    *,
    settings: DictConfig,  # of the trainer
    callbacks: Sequence[Any],
    loggers: Sequence[Any],
    run: Path,
    count_passes: bool,  # whether items of later epochs are augmented anew
    collate: Callable[[Any], Any] | None = None,
    resident: Callable[[torch.device], Dataset] | None = None,  # the items held on a device, read without workers
    ahead: int = 0,  # batches that threads read before they are needed; loader processes read ahead anyway
) -> None:
    """Trains a module to the end of its phase, from its last checkpoint."""
    stage: Any = module.stage
    launcher.spawn_ranks(settings.devices * settings.num_nodes)
    trainer = build_trainer(
        accelerator=settings.accelerator,
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        strategy=settings.strategy,
        precision=settings.precision,
        deterministic=settings.deterministic,
        callbacks=[*callbacks, *([OverfitReport()] if settings.overfit_batches else [])],
        loggers=loggers,
    )
    stream = BatchStream(
        num_images=len(items),  # type: ignore[arg-type]
        batch_size=stage.batch_size,
        num_batches=stage.max_steps * stage.accumulate,
        seed=module.seed,
        start=lambda: module.batches,
        rank=trainer.global_rank,
        world=trainer.world_size,
        overfit_batches=settings.overfit_batches,
        count_passes=count_passes,
    )
    device = trainer.strategy.root_device
    reading = {"num_workers": settings.workers, "pin_memory": device.type == "cuda"} if resident is None else {}
    source = items if resident is None else resident(device)
    reader = ReadAhead(source, batches=ahead) if ahead and resident is None and not settings.workers else None
    if reader is None:
        loader = DataLoader(source, batch_sampler=stream, collate_fn=collate, **reading)
    else:
        loader = DataLoader(reader, batch_sampler=reader.order(stream), collate_fn=collate, **reading)
    checkpoint = checkpoints.newest_readable(checkpoints.newest(run, stage.name))
    if checkpoint is not None:
        log.info("Resuming from %s", checkpoint)
    try:
        with add_path_to_errors(run), matmul_precision(settings.precision):
            trainer.fit(module, loader, ckpt_path=checkpoint, weights_only=True)
        launcher.training_ended()
    except RuntimeError as error:
        launcher.await_watcher(error)
        raise
    except SystemExit:  # Lightning raises it at Ctrl-C and SIGTERM
        raise KeyboardInterrupt from None
    finally:
        if reader is not None:
            reader.close()
