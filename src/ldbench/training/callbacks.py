"""What training shows and keeps on the way. Nothing here changes a number.

A callback is handed the facts that its constructor asks for; one that asks for what a training does not have takes no part in it.
"""

import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from einops import rearrange
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from ldbench.core.interfaces import ImageData, ImageSet, Predictor
from ldbench.core.pixels import sheet
from ldbench.training import checkpoints
from ldbench.training.base_module import ManualOptimizationModule
from ldbench.training.tokenizer_module import TokenizerModule

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 15.0  # of progress, where nobody watches a terminal


class Checkpoint(L.Callback):
    """Keeps the state of the current stage in `folder/checkpoints/`, every so many optimizer steps: the newest one and the one before.

    It comes after all other callbacks: what a run goes on from, it has shown and logged.
    """

    def __init__(self, *, every: int, folder: Path, stage: str):
        self.every = every
        self.path = checkpoints.newest(folder, stage)

    def on_train_start(self, trainer: L.Trainer, task: ManualOptimizationModule) -> None:
        if trainer.is_global_zero:  # what a process left that was killed as it wrote
            checkpoints.scratch(self.path).unlink(missing_ok=True)

    def on_train_batch_end(
        self, trainer: L.Trainer, task: ManualOptimizationModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if task.ended_step and task.steps % self.every == 0:
            scratch = checkpoints.scratch(self.path)
            for logger in trainer.loggers:
                logger.save()
            trainer.save_checkpoint(scratch)
            if trainer.is_global_zero:
                checkpoints.rotate(scratch, self.path)


class Reconstructions(L.Callback):
    """Writes test images above their reconstructions to `folder/images/<stage>-<step>.png`, every so many optimizer steps and at the end."""

    def __init__(self, *, every: int, num_images: int, folder: Path, data: ImageData):
        self.every = every
        self.folder = folder / "images"
        self.images, _ = evenly_spaced_images(data.test, num_images)

    def on_train_batch_end(
        self, trainer: L.Trainer, task: TokenizerModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.every and task.ended_step and task.steps % self.every == 0 and task.steps != task.stage.max_steps:
            self.draw(trainer, task)

    def on_train_end(self, trainer: L.Trainer, task: TokenizerModule) -> None:
        self.draw(trainer, task)

    def draw(self, trainer: L.Trainer, task: TokenizerModule) -> None:
        """One sheet, by one process, to a PNG and to every logger that takes images."""
        if not trainer.is_global_zero:
            return
        tokenizer = task.tokenizer if task.ema is None else task.ema.module
        tokenizer.eval()
        images = task.resize(self.images.to(task.device))
        with torch.no_grad():
            recon = tokenizer.decode(tokenizer.encode(images).mean)
        task.train(task.training)
        picture, step = sheet([images.cpu(), recon.float().cpu()]), task.first_step + task.steps
        show(trainer, picture, folder=self.folder, name=task.stage.name, what="reconstructions", step=step)


def show(
    trainer: L.Trainer,
    picture: torch.Tensor,  # (3, H, W) uint8
    *,
    folder: Path,
    name: str,
    what: str,
    step: int,
) -> None:
    """Writes a picture to `folder/<step>-<name>.png`, and under `what` to every logger that takes images."""
    pixels = rearrange(picture, "c h w -> h w c").numpy()
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / f"{step:07d}-{name}.png")
    for logger in trainer.loggers:
        if hasattr(logger, "log_image"):
            logger.log_image(what, [pixels], step=step)
        elif hasattr(logger.experiment, "add_image"):
            logger.experiment.add_image(what, pixels, step, dataformats="HWC")


class Auxiliaries(L.Callback):
    """Says at the end of a stage how much better than the best constant each auxiliary decoder predicts its target of held-out images.

    Both under the stage's own masks, on up to `num_images` test images; the constant is that of as many training images. Logged as
    `heldout/<term>`, `heldout/<term>_constant` and `heldout/<term>_explained`, the share of the constant's error that is gone.
    """

    def __init__(self, *, num_images: int, data: ImageData):
        self.num_images = num_images
        self.data = data

    @torch.no_grad()
    def on_train_end(self, trainer: L.Trainer, task: TokenizerModule) -> None:
        predictors = {name: term for name, term in task.terms.items() if isinstance(term, Predictor)}
        if not trainer.is_global_zero or not predictors:
            return
        task.eval()
        self.images, self.y = evenly_spaced_images(self.data.test, self.num_images)
        self.known, self.known_y = evenly_spaced_images(self.data.train, self.num_images)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(task.seed)
            told = {name: self.compare(task, term) for name, term in predictors.items()}
        task.train()
        for name, (own, constant) in told.items():
            values = {"": own, "_constant": constant, "_explained": 1 - own / constant}
            for logger in trainer.loggers:
                logger.log_metrics(
                    {f"heldout/{name}{what}": value for what, value in values.items()},
                    step=task.first_step + task.steps,
                )
            log.info(
                "  %s: error %.4g on held-out images; that of the best constant is %.4g (%.0f %% explained)",
                name,
                own,
                constant,
                100 * (1 - own / constant),
            )

    def compare(self, task: TokenizerModule, term: Any) -> tuple[float, float]:
        """The errors of a term and of its best constant, on the test images."""
        targets = [term.targets(task.resize(part), y) for part, y in self.batches(task, self.known, self.known_y)]
        constant = term.constant(torch.cat(targets))
        sums, count = torch.zeros(2, dtype=torch.float64), 0
        for images, y in self.batches(task, self.images, self.y):
            images = task.resize(images)
            recon, seen = task.reconstruct(images), term.targets(images, y)
            errors = (
                term.errors(term.predict(recon), seen),
                term.errors(constant.expand(len(images), *constant.shape[1:]), seen),
            )
            sums += len(images) * torch.stack([term.average(error, recon).double().cpu() for error in errors])
            count += len(images)
        own, constant_error = (sums / count).tolist()
        return own, constant_error

    def batches(
        self, task: TokenizerModule, images: torch.Tensor, y: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Images and labels in the stage's batches, on its device."""
        size = task.stage.batch_size
        return (
            (part.to(task.device), labels.to(task.device))
            for part, labels in zip(images.split(size), y.split(size), strict=True)
        )


def evenly_spaced_images(images: ImageSet, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Up to `count` images of a split, evenly spread over it, and their labels."""
    places = torch.linspace(0, len(images) - 1, min(count, len(images))).long().tolist()
    found, labels = zip(*(images[place] for place in places), strict=True)
    return torch.stack(found), torch.tensor(labels)


class Progress(L.Callback):
    """A rich progress bar on a terminal; elsewhere a line in the log every quarter of a minute."""

    def __init__(self) -> None:
        self.bar: Bar | None = None

    def on_train_start(self, trainer: L.Trainer, task: ManualOptimizationModule) -> None:
        self.begun = self.told = time.monotonic()
        self.begun_at = task.steps
        if not trainer.is_global_zero:
            return
        if sys.stderr.isatty():
            columns = (
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[loss]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self.bar = Bar(TextColumn("{task.description:>10}"), *columns, console=Console(stderr=True))
            self.line = self.bar.add_task(task.stage.name, total=task.stage.max_steps, completed=task.steps, loss="")
            self.bar.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, task: ManualOptimizationModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
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

    def on_train_end(self, trainer: L.Trainer, task: ManualOptimizationModule) -> None:
        self.stop()

    def on_exception(self, trainer: L.Trainer, task: ManualOptimizationModule, exception: BaseException) -> None:
        self.stop()

    def stop(self) -> None:
        """Leaves the terminal as it was."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
