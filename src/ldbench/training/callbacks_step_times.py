"""StepTimes: how long a training step takes, phase by phase."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import lightning as L
import torch

from ldbench.io.files import atomic_write
from ldbench.runtime.flops import FlopCounter
from ldbench.training.base_module import ManualOptimizationModule
from ldbench.training.timing import Clock, Mark, between


class StepTimes(L.Callback):
    """Times the batches of every phase of a training but the first ones, and writes medians to `folder/step_times/<stage>.json`.

    `seconds` of a whole batch, from the end of the one before; of them `waiting` for data and what is around a step, and each phase that the
    training names; `images`, of this process; on CUDA the `peak_memory` in bytes. An accelerator is not held up. Changes no number, but with
    `operations` a compiled training's: the first batch, uncompiled, is counted for its floating-point operations.
    """

    def __init__(self, *, warmup: int, operations: bool, folder: Path):
        self.warmup = warmup  # batches that are not timed: the first are not like the others
        self.operations = operations
        self.folder = folder / "step_times"

    def on_train_start(self, trainer: L.Trainer, task: ManualOptimizationModule) -> None:
        self.rows: list[dict[str, float]] = []
        self.ended: Mark | None = None
        self.unread: Callable[[], dict[str, float]] | None = None
        self.counter: FlopCounter | None = None
        if task.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(task.device)

    def on_train_batch_start(
        self, trainer: L.Trainer, task: ManualOptimizationModule, batch: Any, batch_idx: int
    ) -> None:
        self.clock, self.running = Clock(task.device), ExitStack()
        self.began = self.clock.now()
        self.images = len(batch[1])
        self.running.enter_context(self.clock.running())
        if self.operations and self.counter is None:
            self.counter = self.running.enter_context(FlopCounter())

    def on_train_batch_end(
        self, trainer: L.Trainer, task: ManualOptimizationModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.running.close()
        ended = self.clock.now()
        self.read()  # the batch before, which the device is done with
        if self.ended is not None and batch_idx >= self.warmup:
            self.unread = partial(row, self.ended, self.began, ended, self.clock)
        self.ended = ended

    def read(self) -> None:
        """Takes down the times of the batch that waits for it."""
        if self.unread is not None:
            self.rows.append(self.unread())
            self.unread = None

    def on_train_end(self, trainer: L.Trainer, task: ManualOptimizationModule) -> None:
        self.read()
        if not self.rows or not trainer.is_global_zero:
            return
        told = {
            name: median(row.get(name, 0.0) for row in self.rows)
            for name in dict.fromkeys(name for row in self.rows for name in row)
        }
        told["images"] = self.images
        if self.counter is not None:
            told["operations"] = self.counter.total
        if task.device.type == "cuda":
            told["peak_memory"] = torch.cuda.max_memory_allocated(task.device)
        with atomic_write(self.folder / f"{task.stage.name}.json") as scratch:
            scratch.write_text(json.dumps(told, indent=2) + "\n")


def row(before: Mark, began: Mark, ended: Mark, clock: Clock) -> dict[str, float]:
    """The times of a batch, in seconds: of all of it from the end of the batch before, and of its parts."""
    return {"seconds": between(before, ended), "waiting": between(before, began), **clock.seconds()}
