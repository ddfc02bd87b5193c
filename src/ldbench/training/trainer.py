"""The one Lightning trainer that every task runs under."""

import logging
import signal
import threading
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.plugins.environments import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy

from ldbench.runtime.device import Precision, find_device
from ldbench.runtime.launcher import interrupt_ranks
from ldbench.runtime.process_group import leader_address, process_info
from ldbench.training.checkpoints import InPlace

LIGHTNING_PRECISION = {"fp32": "32-true", "tf32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def build(
    *,
    accelerator: str,
    devices: int,  # processes on each machine
    num_nodes: int,
    strategy: str,
    precision: Precision,
    deterministic: bool,
    callbacks: Sequence[L.Callback],
    loggers: Sequence[Logger],
) -> L.Trainer:
    """A trainer for one stage: one pass over a stream of batches whose length the task decides."""
    quieten()
    torch.utils.deterministic.fill_uninitialized_memory = (
        False  # nothing here reads what it did not write: filling it is work for nothing
    )
    alone = devices * num_nodes == 1
    chosen: str | Strategy = "auto" if alone and strategy in ("ddp", "fsdp") else strategy
    if strategy == "fsdp" and not alone:
        sizes = {"data_parallel_size": devices * num_nodes, "tensor_parallel_size": 1}
        chosen = ModelParallelStrategy(**sizes, save_distributed_checkpoint=False, timeout=timedelta(days=1))
    if strategy in ("ddp", "auto") and not alone:
        # a stage may leave parts untouched: mask tokens without a mask. The first process may measure for long while the others wait for it
        chosen = DDPStrategy(find_unused_parameters=True, timeout=timedelta(days=1))
    return L.Trainer(
        accelerator=find_device(accelerator).type,
        devices=devices,
        num_nodes=num_nodes,
        strategy=chosen,
        plugins=[Together(), InPlace()],
        precision=LIGHTNING_PRECISION[precision],
        deterministic=deterministic,
        max_epochs=1,
        callbacks=[*callbacks, *([] if alone else [Terminable()])],
        logger=list(loggers),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,  # our own callback keeps them
        log_every_n_steps=1,  # the task decides when
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )


class Terminable(L.Callback):
    """Has SIGTERM end a shared training; Lightning's own handler would ask the other processes, which may be gone, or elsewhere."""

    def on_train_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, interrupt_ranks)  # Lightning puts back afterwards what was there before


class Together(ClusterEnvironment):
    """What Lightning asks about the processes, which are all started by others."""

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return leader_address()[0]

    @property
    def main_port(self) -> int:
        return leader_address()[1]

    @staticmethod
    def detect() -> bool:
        return True

    def world_size(self) -> int:
        return process_info().world

    def global_rank(self) -> int:
        return process_info().rank

    def local_rank(self) -> int:
        return process_info().local_rank

    def node_rank(self) -> int:
        return process_info().node

    def set_world_size(self, size: int) -> None:
        """Nothing: it is known."""

    def set_global_rank(self, rank: int) -> None:
        """Nothing: it is known."""


def csv_logger(folder: Path) -> CSVLogger:
    """The log that is always written; every start of a run has a `version_N` of its own, so that nothing is overwritten."""
    return CSVLogger(save_dir=folder, name="log", flush_logs_every_n_steps=50)


def quieten() -> None:
    """Keeps Lightning's remarks about what we chose on purpose out of the way."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for remark in (
        ".*does not have many workers.*",
        ".*srun.*command is available.*",
        ".*GPU available but not used.*",
        ".*resuming from a checkpoint that ended before the epoch ended.*",
        ".*treespec, LeafSpec.*",
        ".*returned a view tensor.*",  # sharded networks; nothing is done to it in place
        ".*module\\(s\\) in eval mode.*",  # teachers, and what a stage freezes
    ):
        warnings.filterwarnings("ignore", message=remark)
