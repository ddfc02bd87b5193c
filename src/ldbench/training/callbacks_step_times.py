"""StepTimes: the time of a training step, by phase."""

import json
from collections.abc import Callable, Mapping, Sequence
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
    """Times the optimizer steps of every stage except the first ones, and writes medians to
    `folder/step_times/<stage>.json`.

    `seconds` of a whole step, from the end of the one before, over all batches that it accumulates; of these `waiting`,
    for data and outside the step, and each phase of the training; `images` of this process in a step; on CUDA the
    `peak_memory` in bytes. Does not synchronize the device. Changes no number, except with `operations` those of a
    compiled training: the first batch runs uncompiled, and its floating-point operations are counted, which are those
    of each batch.
    """

    def __init__(self, *, warmup: int, operations: bool, folder: Path):
        self.warmup = warmup  # first batches, which are not timed
        self.operations = operations
        self.folder = folder / "step_times"

    def on_train_start(self, trainer: L.Trainer, module: ManualOptimizationModule) -> None:
        """Resets the times and the peak memory."""
        self.rows: list[dict[str, float]] = []  # of whole steps
        self.batches: list[dict[str, float]] = []  # of the step that is not complete
        self.ended: Mark | None = None
        self.pending: Callable[[], dict[str, float]] | None = None
        self.counter: FlopCounter | None = None
        if module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(module.device)

    def on_train_batch_start(
        self, trainer: L.Trainer, module: ManualOptimizationModule, batch: Any, batch_idx: int
    ) -> None:
        """Starts the clock of a batch, and the FLOP counter at the first one."""
        self.clock, self.running = Clock(module.device), ExitStack()
        self.started = self.clock.now()
        self.images = len(batch[1])
        self.running.enter_context(self.clock.running())
        if self.operations and self.counter is None:
            self.counter = self.running.enter_context(FlopCounter())

    def on_train_batch_end(
        self, trainer: L.Trainer, module: ManualOptimizationModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stops the clock of a batch; its times are read after the next one."""
        self.running.close()
        ended = self.clock.now()
        self.read_pending()  # of the batch before, which the device has finished
        if self.ended is not None and batch_idx >= self.warmup:
            self.pending = partial(batch_times, self.ended, self.started, ended, self.clock)
            self.completed = module.completed_step
        self.ended, self.accumulate = ended, module.stage.accumulate

    def read_pending(self) -> None:
        """Reads the times of the last batch that was timed, and adds up those of a step that it completed."""
        if self.pending is None:
            return
        self.batches.append(self.pending())
        self.pending = None
        if self.completed:
            if len(self.batches) == self.accumulate:  # a step of which a first batch was not timed is left out
                self.rows.append(added_up(self.batches))
            self.batches = []

    def on_train_end(self, trainer: L.Trainer, module: ManualOptimizationModule) -> None:
        """Writes the medians."""
        self.read_pending()
        if not self.rows or not trainer.is_global_zero:
            return
        summary = {
            name: median(row.get(name, 0.0) for row in self.rows)
            for name in dict.fromkeys(name for row in self.rows for name in row)
        }
        summary["images"] = self.images * self.accumulate
        if self.counter is not None:
            summary["operations"] = self.counter.total * self.accumulate
        if module.device.type == "cuda":
            summary["peak_memory"] = torch.cuda.max_memory_allocated(module.device)
        with atomic_write(self.folder / f"{module.stage.name}.json") as scratch:
            scratch.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def added_up(batches: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The times of several batches together."""
    names = dict.fromkeys(name for times in batches for name in times)
    return {name: sum(times.get(name, 0.0) for times in batches) for name in names}


def batch_times(before: Mark, started: Mark, ended: Mark, clock: Clock) -> dict[str, float]:
    """The times of a batch in seconds: from the end of the batch before, and of its phases."""
    return {"seconds": between(before, ended), "waiting": between(before, started), **clock.seconds()}
