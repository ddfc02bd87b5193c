"""The one Lightning trainer that every task runs under."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import lightning as L
from lightning.pytorch.loggers import CSVLogger, Logger

from ldbench.core.device import Precision, find_device
from ldbench.tasks.checkpoints import InPlace

LIGHTNING_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def build(
    *,
    accelerator: str,
    devices: int,
    strategy: str,
    precision: Precision,
    deterministic: bool,
    callbacks: Sequence[L.Callback],
    loggers: Sequence[Logger],
) -> L.Trainer:
    """A trainer for one stage: one pass over a stream of batches whose length the task decides."""
    quieten()
    if strategy == "ddp" or (strategy == "auto" and devices > 1):
        strategy = "ddp_find_unused_parameters_true"  # a stage may leave parts untouched: mask tokens without a mask
    return L.Trainer(
        accelerator=find_device(accelerator).type,
        devices=devices,
        strategy=strategy,
        precision=LIGHTNING_PRECISION[precision],
        deterministic=deterministic,
        max_epochs=1,
        callbacks=list(callbacks),
        logger=list(loggers),
        plugins=[InPlace()],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,  # our own callback keeps them
        log_every_n_steps=1,  # the task decides when
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )


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
        ".*module\\(s\\) in eval mode.*",  # teachers, and what a stage freezes
    ):
        warnings.filterwarnings("ignore", message=remark)
