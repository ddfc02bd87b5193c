"""Callbacks for checkpoints and pictures. None of them changes a number.

A callback receives the inputs that its constructor requires; one that requires an input that a training does not have
is left out of it.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from einops import rearrange
from PIL import Image

from ldbench.config.value_types import Positive
from ldbench.core.interfaces import ImageData, ImageSet, Predictor
from ldbench.core.pixels import sheet
from ldbench.training import checkpoints
from ldbench.training.base_module import ManualOptimizationModule
from ldbench.training.tokenizer_module import TokenizerModule

log = logging.getLogger(__name__)


class Checkpoint(L.Callback):
    """Writes checkpoints of the current stage to `folder/checkpoints/` every `every` optimizer steps,
    and keeps two of them.

    It runs after all other callbacks: the steps before a checkpoint have been drawn and logged.
    """

    def __init__(self, *, every: Positive, folder: Path, stage: str):
        self.every = every
        self.path = checkpoints.newest(folder, stage)

    def on_train_start(self, trainer: L.Trainer, module: ManualOptimizationModule) -> None:
        """Removes the scratch file of a process that was killed while it wrote."""
        if trainer.is_global_zero:
            checkpoints.scratch(self.path).unlink(missing_ok=True)

    def on_train_batch_end(
        self, trainer: L.Trainer, module: ManualOptimizationModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Writes a checkpoint at every `every`-th optimizer step."""
        if module.completed_step and module.steps % self.every == 0:
            scratch = checkpoints.scratch(self.path)
            for logger in trainer.loggers:
                logger.save()
            trainer.save_checkpoint(scratch)
            if trainer.is_global_zero:
                checkpoints.rotate(scratch, self.path)


class Reconstructions(L.Callback):
    """Writes test images above their reconstructions to `folder/images/<step>-<stage>.png`, also at the end."""

    def __init__(self, *, every: int, num_images: int, folder: Path, data: ImageData):
        self.every = every
        self.folder = folder / "images"
        self.images, _ = evenly_spaced_images(data.test, num_images)

    def on_train_batch_end(
        self, trainer: L.Trainer, module: TokenizerModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Draws at every `every`-th optimizer step."""
        if (
            self.every
            and module.completed_step
            and module.steps % self.every == 0
            and module.steps != module.stage.max_steps
        ):
            self.draw(trainer, module)

    def on_train_end(self, trainer: L.Trainer, module: TokenizerModule) -> None:
        """Draws the final reconstructions."""
        self.draw(trainer, module)

    def draw(self, trainer: L.Trainer, module: TokenizerModule) -> None:
        """Draws one sheet in rank 0, to a PNG and to every logger that takes images."""
        if not trainer.is_global_zero:
            return
        tokenizer = module.tokenizer if module.ema is None else module.ema.module
        tokenizer.eval()
        images = module.resize(self.images.to(module.device))
        with torch.no_grad():
            recon = tokenizer.decode(tokenizer.encode(images).mean)
        module.train(module.training)
        picture, step = sheet([images.cpu(), recon.float().cpu()]), module.first_step + module.steps
        log_picture(trainer, picture, folder=self.folder, name=module.stage.name, what="reconstructions", step=step)


def log_picture(
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
    """Compares at the end of a stage the error of each auxiliary decoder on held-out images
    with that of the best constant.

    Both under the stage's own masks, on up to `num_images` test images; the constant is fitted to as many training
    images. Logged as `heldout/<term>`, `heldout/<term>_constant` and `heldout/<term>_explained`, the explained fraction
    of the constant's error.
    """

    def __init__(self, *, num_images: int, data: ImageData):
        self.num_images = num_images
        self.data = data

    @torch.no_grad()
    def on_train_end(self, trainer: L.Trainer, module: TokenizerModule) -> None:
        """Compares every auxiliary decoder with its constant, and logs the errors."""
        predictors = {name: term for name, term in module.terms.items() if isinstance(term, Predictor)}
        if not trainer.is_global_zero or not predictors:
            return
        module.eval()
        self.images, self.y = evenly_spaced_images(self.data.test, self.num_images)
        self.train_images, self.train_y = evenly_spaced_images(self.data.train, self.num_images)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(module.seed)
            errors = {name: self.compare(module, term) for name, term in predictors.items()}
        module.train()
        for name, (own, constant) in errors.items():
            values = {"": own, "_constant": constant}
            values |= {"_explained": 1 - own / constant} if constant > 0 else {}
            for logger in trainer.loggers:
                logger.log_metrics(
                    {f"heldout/{name}{suffix}": value for suffix, value in values.items()},
                    step=module.first_step + module.steps,
                )
            log.info(
                "  %s: error %.4g on held-out images; that of the best constant is %.4g (%s)",
                name,
                own,
                constant,
                f"{100 * (1 - own / constant):.0f} % explained" if own < constant else "it is no better",
            )

    def compare(self, module: TokenizerModule, term: Any) -> tuple[float, float]:
        """The errors of a term and of its best constant, on the test images."""
        train_batches = self.batches(module, self.train_images, self.train_y)
        constant = term.constant(torch.cat([term.targets(module.resize(part), y) for part, y in train_batches]))
        sums, count = torch.zeros(2, dtype=torch.float64), 0
        for images, y in self.batches(module, self.images, self.y):
            images = module.resize(images)
            recon, targets = module.reconstruct(images), term.targets(images, y)
            errors = (
                term.errors(term.predict(recon), targets),
                term.errors(constant.expand(len(images), *constant.shape[1:]), targets),
            )
            sums += len(images) * torch.stack([term.average(error, recon).double().cpu() for error in errors])
            count += len(images)
        own, constant_error = (sums / count).tolist()
        return own, constant_error

    def batches(
        self, module: TokenizerModule, images: torch.Tensor, y: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Images and labels in the stage's batches, on its device."""
        size = module.stage.batch_size
        return (
            (part.to(module.device), labels.to(module.device))
            for part, labels in zip(images.split(size), y.split(size), strict=True)
        )


def evenly_spaced_images(images: ImageSet, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Up to `count` images of a split, evenly spaced in it, and their labels."""
    indices = torch.linspace(0, len(images) - 1, min(count, len(images))).long().tolist()
    selected, labels = zip(*(images[index] for index in indices), strict=True)
    return torch.stack(selected), torch.tensor(labels)
