"""The Lightning trainer of every training module."""

import logging
import signal
import threading
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.plugins.environments import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy, StrategyRegistry

from ldbench.runtime.device import Precision, find_device
from ldbench.runtime.launcher import interrupt_ranks
from ldbench.runtime.process_group import leader_address, process_info
from ldbench.training.checkpoints import DirectCheckpointIO

LIGHTNING_PRECISION = {"fp32": "32-true", "tf32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def build_trainer(
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
    """A trainer for one stage, which is one Lightning epoch over a stream of batches."""
    silence_lightning()
    torch.utils.deterministic.fill_uninitialized_memory = False  # unnecessary: no code here reads uninitialized memory
    alone = devices * num_nodes == 1
    chosen: str | Strategy = "auto" if alone and strategy in ("ddp", "fsdp") else strategy
    if strategy == "fsdp" and not alone:
        sizes = {"data_parallel_size": devices * num_nodes, "tensor_parallel_size": 1}
        chosen = ModelParallelStrategy(**sizes, save_distributed_checkpoint=False, timeout=timedelta(days=1))
    if strategy in ("ddp", "auto") and not alone:
        # a stage may leave parameters unused: mask tokens without a mask. Rank 0 may measure for hours while others
        # wait
        chosen = DDPStrategy(find_unused_parameters=True, timeout=timedelta(days=1))
    return L.Trainer(
        accelerator=find_device(accelerator).type,
        devices=devices,
        num_nodes=num_nodes,
        strategy=chosen,
        plugins=[ExternallyLaunched(), DirectCheckpointIO()],
        precision=LIGHTNING_PRECISION[precision],
        deterministic=deterministic,
        max_epochs=1,
        callbacks=[*callbacks, *([] if alone else [TerminationHandler()])],
        logger=list(loggers),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        log_every_n_steps=1,  # the module decides when
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )


class TerminationHandler(L.Callback):
    """Ends a shared training at SIGTERM; Lightning's own handler would wait for the other ranks, which may be gone."""

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Installs the signal handler."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, interrupt_ranks)  # Lightning restores the previous handler afterwards


class ExternallyLaunched(ClusterEnvironment):
    """The ranks of `runtime.process_group` for Lightning, which starts no processes itself."""

    @property
    def creates_processes_externally(self) -> bool:
        """True: Lightning starts no processes."""
        return True

    @property
    def main_address(self) -> str:
        """The host of rank 0."""
        return leader_address()[0]

    @property
    def main_port(self) -> int:
        """The port of rank 0."""
        return leader_address()[1]

    @staticmethod
    def detect() -> bool:
        """True: this environment always applies."""
        return True

    def world_size(self) -> int:
        """The number of processes."""
        return process_info().world

    def global_rank(self) -> int:
        """The rank of this process."""
        return process_info().rank

    def local_rank(self) -> int:
        """The rank of this process on its machine."""
        return process_info().local_rank

    def node_rank(self) -> int:
        """The number of this machine."""
        return process_info().node

    def set_world_size(self, size: int) -> None:
        """Does nothing: the world size is fixed."""

    def set_global_rank(self, rank: int) -> None:
        """Does nothing: the rank is fixed."""


def csv_logger(folder: Path) -> CSVLogger:
    """The CSV log of every training; each start of a run writes a new `version_N`."""
    return CSVLogger(save_dir=folder, name="log", flush_logs_every_n_steps=50)


def strategy_names() -> list[str]:
    """The names of Lightning's strategies."""
    return list(StrategyRegistry.available_strategies())


def silence_lightning() -> None:
    """Silences Lightning's warnings about deliberate choices."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for warning in (
        ".*does not have many workers.*",
        ".*srun.*command is available.*",
        ".*GPU available but not used.*",
        ".*resuming from a checkpoint that ended before the epoch ended.*",
        ".*treespec, LeafSpec.*",
        ".*returned a view tensor.*",  # sharded networks; the view is not modified in place
        ".*module\\(s\\) in eval mode.*",  # teachers and frozen parts
    ):
        warnings.filterwarnings("ignore", message=warning)
