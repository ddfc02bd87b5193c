"""SmallGenerator: how well a generator of fixed budget learns a tokenizer's latents as its training goes on. Changes no number."""

import logging
from typing import Any

import lightning as L
import torch

from ldbench.core.interfaces import Budget, ImageData
from ldbench.training.callbacks import evenly_spaced_images
from ldbench.training.tokenizer_module import TokenizerModule

log = logging.getLogger(__name__)


class SmallGenerator(L.Callback):
    """Trains a small generator on the latents so far, every so many optimizer steps while the encoder learns, and at the end of a stage.

    Logged as `small_generator/heldout_loss`, `/train_loss` and `/explained`; latents are the posterior means of the same images every time, by the
    average of the weights where the stage keeps one. One process does it, while others wait.
    """

    def __init__(self, *, every: int, num_images: int, budget: Budget, data: ImageData):
        self.every = every
        self.budget = budget
        self.num_classes = data.num_classes
        self.train, self.heldout = (
            evenly_spaced_images(data.train, num_images),
            evenly_spaced_images(data.test, num_images),
        )

    def on_train_batch_end(
        self, trainer: L.Trainer, task: TokenizerModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        moving = task.stage.encoder == "trainable" and task.steps != task.stage.max_steps
        if self.every and moving and task.ended_step and task.steps % self.every == 0:
            self.measure(trainer, task)

    def on_train_end(self, trainer: L.Trainer, task: TokenizerModule) -> None:
        self.measure(trainer, task)

    def measure(self, trainer: L.Trainer, task: TokenizerModule) -> None:
        """Encodes, lets learn, and logs."""
        if not trainer.is_global_zero:
            return
        tokenizer = task.tokenizer if task.ema is None else task.ema.module
        tokenizer.eval()
        size = task.stage.batch_size
        with torch.no_grad():
            latents = [
                torch.cat(
                    [tokenizer.encode(task.resize(part.to(task.device))).mean.float() for part in images.split(size)]
                )
                for images, _ in (self.train, self.heldout)
            ]
        task.train(task.training)
        told = self.budget.learn(
            latents[0], self.train[1], latents[1], self.heldout[1], num_classes=self.num_classes, device=task.device
        )
        values = {
            "heldout_loss": told.heldout.mean().item(),
            "train_loss": told.train.mean().item(),
            "explained": told.explained,
        }
        for logger in trainer.loggers:
            logger.log_metrics(
                {f"small_generator/{name}": value for name, value in values.items()}, step=task.first_step + task.steps
            )
        log.info(
            "  a small generator's held-out loss at step %d: %.4f, training %.4f",
            task.steps,
            values["heldout_loss"],
            values["train_loss"],
        )
