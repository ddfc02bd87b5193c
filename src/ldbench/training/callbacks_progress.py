"""Progress of a training: a panel on a terminal, lines in the log elsewhere. It changes no number."""

import logging
import sys
import time
from collections.abc import Mapping
from typing import Any, cast

import lightning as L
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ldbench.runtime.progress import SECONDS_BETWEEN_LINES, format_seconds
from ldbench.training.base_module import ManualOptimizationModule

log = logging.getLogger(__name__)

REFRESHES_PER_SECOND = 4.0


class Progress(L.Callback):
    """A panel on a terminal, with the stage, its rate, the remaining time and the last metrics; elsewhere a line in the
    log every quarter of a minute.
    """

    def __init__(self) -> None:
        self.panel: Live | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the panel, or the clock of the lines."""
        module = cast(ManualOptimizationModule, pl_module)
        self.start_time = self.last_line = time.monotonic()
        self.first_step = module.steps
        if trainer.is_global_zero and sys.stderr.isatty():
            shown = self.describe(module, {})
            self.panel = Live(
                shown, console=Console(stderr=True), refresh_per_second=REFRESHES_PER_SECOND, transient=True
            )
            self.panel.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Updates the panel, or logs a line."""
        module = cast(ManualOptimizationModule, pl_module)
        if not trainer.is_global_zero or not module.completed_step:
            return
        now = time.monotonic()
        last = module.steps == module.stage.max_steps
        if self.panel is not None:
            if module.log_is_due:
                metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
                self.panel.update(self.describe(module, metrics), refresh=last)
        elif now - self.last_line >= SECONDS_BETWEEN_LINES or last:
            rate = self.rate(module)
            log.info(
                "  %s: step %d of %d, loss %.4g, %.1f steps/s, %s left",
                module.stage.name,
                module.steps,
                module.stage.max_steps,
                outputs["loss"].item(),
                rate,
                format_seconds((module.stage.max_steps - module.steps) / rate),
            )
            self.last_line = now

    def rate(self, module: ManualOptimizationModule) -> float:
        """Steps per second since the start of this process."""
        return (module.steps - self.first_step) / max(time.monotonic() - self.start_time, 1e-9)

    def describe(self, module: ManualOptimizationModule, metrics: Mapping[str, float]) -> Panel:
        """The panel: the stage and its bar, rate and times, and the metrics by name."""
        stage, steps, rate = module.stage, module.steps, self.rate(module)
        seconds = time.monotonic() - self.start_time
        left = f"{format_seconds((stage.max_steps - steps) / rate)} left" if rate else "starting"
        times = f"step {steps} of {stage.max_steps}, {rate:.1f} steps/s, {format_seconds(seconds)} so far, {left}"
        head = Table.grid(expand=True, padding=(0, 1))
        head.add_column(ratio=1)
        head.add_column(no_wrap=True)
        head.add_row(ProgressBar(total=stage.max_steps, completed=steps), Text(times))
        lines: list[RenderableType] = [head]
        if metrics:
            grid = Table.grid(padding=(0, 2))
            for name, value in metrics.items():
                grid.add_row(Text(name, style="dim"), Text(f"{value:.4g}", justify="right"))
            lines.append(grid)
        return Panel(Group(*lines), title=stage.name, title_align="left")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Removes the panel."""
        self.stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Removes the panel."""
        self.stop()

    def stop(self) -> None:
        """Removes the panel and restores the terminal."""
        if self.panel is not None:
            self.panel.stop()
            self.panel = None
