"""What training shows and keeps on the way. Nothing here changes a number."""

import logging
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from einops import rearrange
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from ldbench.core.pixels import sheet
from ldbench.core.protocols import ImageData
from ldbench.tasks import checkpoints
from ldbench.tasks.tokenizer import TokenizerTask

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 15.0  # of progress, where nobody watches a terminal


class Checkpoint(L.Callback):
    """Keeps the state of the current stage in `folder/checkpoints/`, every so many optimizer steps: the newest one and the one before."""

    def __init__(self, *, every: int, folder: Path, data: ImageData, stage: str):
        self.every = every
        self.path = checkpoints.newest(folder, stage)

    def on_train_batch_end(self, trainer: L.Trainer, task: TokenizerTask, outputs: Any, batch: Any, batch_idx: int) -> None:
        if task.ended_step and task.steps % self.every == 0:
            scratch = checkpoints.scratch(self.path)
            trainer.save_checkpoint(scratch)
            if trainer.is_global_zero:
                checkpoints.rotate(scratch, self.path)


class Reconstructions(L.Callback):
    """Writes test images above their reconstructions to `folder/images/<stage>-<step>.png`, every so many optimizer steps and at the end."""

    def __init__(self, *, every: int, num_images: int, folder: Path, data: ImageData, stage: str):
        self.every = every
        self.folder = folder / "images"
        count = min(num_images, len(data.test))
        places = torch.linspace(0, len(data.test) - 1, count).long().tolist()
        self.images = torch.stack([data.test[place][0] for place in places])

    def on_train_batch_end(self, trainer: L.Trainer, task: TokenizerTask, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.every and task.ended_step and task.steps % self.every == 0 and task.steps != task.stage.max_steps:
            self.draw(trainer, task)

    def on_train_end(self, trainer: L.Trainer, task: TokenizerTask) -> None:
        self.draw(trainer, task)

    def draw(self, trainer: L.Trainer, task: TokenizerTask) -> None:
        """One sheet, by one process, to a PNG and to every logger that takes images."""
        if not trainer.is_global_zero:
            return
        tokenizer = task.tokenizer if task.ema is None else task.ema.module
        tokenizer.eval()
        images = task.resize(self.images.to(task.device))
        with torch.no_grad():
            recon = tokenizer.decode(tokenizer.encode(images).mean)
        task.train(task.training)
        picture = rearrange(sheet([images.cpu(), recon.float().cpu()]), "c h w -> h w c").numpy()
        step = task.first_step + task.steps
        self.folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(self.folder / f"{step:07d}-{task.stage.name}.png")
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                logger.log_image("reconstructions", [picture], step=step)
            elif hasattr(logger.experiment, "add_image"):
                logger.experiment.add_image("reconstructions", picture, step, dataformats="HWC")


class Progress(L.Callback):
    """A rich progress bar on a terminal; elsewhere a line in the log every quarter of a minute."""

    def __init__(self, *, folder: Path, data: ImageData, stage: str):
        self.bar: Bar | None = None

    def on_train_start(self, trainer: L.Trainer, task: TokenizerTask) -> None:
        self.begun = self.told = time.monotonic()
        self.begun_at = task.steps
        if not trainer.is_global_zero:
            return
        if sys.stderr.isatty():
            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"), TimeElapsedColumn(), TimeRemainingColumn())
            self.bar = Bar(TextColumn("{task.description:>10}"), *columns, console=Console(stderr=True))
            self.line = self.bar.add_task(task.stage.name, total=task.stage.max_steps, completed=task.steps, loss="")
            self.bar.start()

    def on_train_batch_end(self, trainer: L.Trainer, task: TokenizerTask, outputs: Any, batch: Any, batch_idx: int) -> None:
        if not trainer.is_global_zero or not task.ended_step:
            return
        now = time.monotonic()
        last = task.steps == task.stage.max_steps
        if self.bar is not None:
            if task.steps % task.log_every == 0 or last:
                self.bar.update(self.line, completed=task.steps, loss=f"loss {outputs['loss'].item():.4f}")
        elif now - self.told >= SECONDS_BETWEEN_LINES or last:
            rate = (task.steps - self.begun_at) / (now - self.begun)
            left = (task.stage.max_steps - task.steps) / rate
            loss = outputs["loss"].item()
            log.info(
                "  %s: step %d of %d, loss %.4f, %.1f steps/s, %.0f s left",
                task.stage.name,
                task.steps,
                task.stage.max_steps,
                loss,
                rate,
                left,
            )
            self.told = now

    def on_train_end(self, trainer: L.Trainer, task: TokenizerTask) -> None:
        self.stop()

    def on_exception(self, trainer: L.Trainer, task: TokenizerTask, exception: BaseException) -> None:
        self.stop()

    def stop(self) -> None:
        """Leaves the terminal as it was."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
