"""Profile: the time and memory of one batch, by operation and by phase."""

import logging
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.profiler import ProfilerActivity, profile

from ldbench.training.base_module import ManualOptimizationModule

log = logging.getLogger(__name__)

ROWS = 40


class Profile(L.Callback):
    """Profiles one batch of every stage: a table `folder/profile/<stage>.txt`, and a trace `<stage>.json` for Perfetto.

    The rows of the training's phases (`term <name>`, `gradient of <name> by the image`, `tokenizer backward`, ...) are
    also logged, with their number of calls. Changes no number.
    """

    def __init__(self, *, batch: int, folder: Path):
        self.batch = batch  # counted from 0
        self.folder = folder / "profile"
        self.running: profile | None = None

    def on_train_batch_start(
        self, trainer: L.Trainer, module: ManualOptimizationModule, batch: Any, batch_idx: int
    ) -> None:
        """Starts the profiler before the chosen batch."""
        if module.batches == self.batch and trainer.is_global_zero:
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
            self.running = profile(activities=activities, profile_memory=True)
            self.running.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: ManualOptimizationModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Writes the table and the trace after the chosen batch."""
        if self.running is None:
            return
        self.running.stop()
        self.folder.mkdir(parents=True, exist_ok=True)
        averages = self.running.key_averages()
        table = self.folder / f"{module.stage.name}.txt"
        table.write_text(
            averages.table(sort_by="self_cpu_time_total", row_limit=ROWS, max_name_column_width=50), encoding="utf-8"
        )
        self.running.export_chrome_trace(str(table.with_suffix(".json")))
        self.running = None
        log.info("Profile of batch %d: %s", self.batch, table)
        for row in sorted(averages, key=lambda row: -row.cpu_time_total):
            if row.is_user_annotation:
                log.info("  %-40s  %3d x  %8.3f s", row.key, row.count, row.cpu_time_total / 1e6)
