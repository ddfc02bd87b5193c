"""StepTimes: how long a training step takes, phase by phase."""

import json
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import lightning as L
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from ldbench.core.files import in_one_move
from ldbench.tasks.phases import Clock
from ldbench.tasks.stepwise import StepwiseTask

ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
ATTENTION_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class StepTimes(L.Callback):
    """Times the batches of every phase of a training but the first ones, and writes medians to `folder/step_times/<stage>.json`.

    `seconds` of a whole batch, from the end of the one before; of them `waiting` for data and what is around a step, and each phase that the
    training names, an accelerator being waited for between them; `images`, of this process; on CUDA the `peak_memory` in bytes. Changes no number,
    but with `operations` a compiled training's: the first batch, uncompiled, is counted for its floating-point operations.
    """

    def __init__(self, *, warmup: int, operations: bool, folder: Path):
        self.warmup = warmup  # batches that are not timed: the first are not like the others
        self.operations = operations
        self.folder = folder / "step_times"

    def on_train_start(self, trainer: L.Trainer, task: StepwiseTask) -> None:
        self.rows: list[dict[str, float]] = []
        self.ended: float | None = None
        self.counter: Operations | None = None
        if task.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(task.device)

    def on_train_batch_start(self, trainer: L.Trainer, task: StepwiseTask, batch: Any, batch_idx: int) -> None:
        self.clock, self.running = Clock(task.device), ExitStack()
        self.began = self.clock.now()
        self.images = len(batch[1])
        self.running.enter_context(self.clock.running())
        if self.operations and self.counter is None:
            self.counter = self.running.enter_context(Operations())

    def on_train_batch_end(self, trainer: L.Trainer, task: StepwiseTask, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.running.close()
        ended = self.clock.now()
        if self.ended is not None and batch_idx >= self.warmup:
            self.rows.append({"seconds": ended - self.ended, "waiting": self.began - self.ended, **self.clock.seconds})
        self.ended = time.perf_counter()

    def on_train_end(self, trainer: L.Trainer, task: StepwiseTask) -> None:
        if not self.rows or not trainer.is_global_zero:
            return
        told = {name: median(row.get(name, 0.0) for row in self.rows) for name in dict.fromkeys(name for row in self.rows for name in row)}
        told["images"] = self.images
        if self.counter is not None:
            told["operations"] = self.counter.total
        if task.device.type == "cuda":
            told["peak_memory"] = torch.cuda.max_memory_allocated(task.device)
        with in_one_move(self.folder / f"{task.stage.name}.json") as scratch:
            scratch.write_text(json.dumps(told, indent=2) + "\n")


class Operations(TorchDispatchMode):
    """Counts the floating-point operations of what is computed meanwhile, backward passes too, in `total`: by torch's formulas.

    `FlopCounterMode`, which asks where in a module each happens, does not stand the gradients of balanced loss terms.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=found)
        elif func._overloadpacket is ATTENTION:  # on a CPU, where not every torch has formulas
            self.total += sdpa_flop_count(*(part.shape for part in args[:3]))
        elif func._overloadpacket is ATTENTION_BACKWARD:
            self.total += sdpa_backward_flop_count(*(part.shape for part in args[:4]))
        return found
