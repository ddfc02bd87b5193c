"""SmallGenerator: the loss of a generator of fixed budget on a tokenizer's latents during its training."""

import logging
from typing import Any

import lightning as L
import torch

from ldbench.core.interfaces import Budget, ImageData
from ldbench.training.callbacks import evenly_spaced_images
from ldbench.training.tokenizer_module import TokenizerModule

log = logging.getLogger(__name__)


class SmallGenerator(L.Callback):
    """Trains a small generator on the current latents, every `every` steps while the encoder is trained,
    and at a stage's end.

    Logged as `small_generator/heldout_loss`, `/train_loss` and `/explained`. Latents are the posterior means of the
    same images every time, by the weight average where the stage keeps one. Rank 0 trains it while the others wait.
    Changes no number of the tokenizer's training.
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
        self, trainer: L.Trainer, module: TokenizerModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measures at every `every`-th optimizer step while the encoder is trained."""
        moving = module.stage.encoder == "trainable" and module.steps != module.stage.max_steps
        if self.every and moving and module.completed_step and module.steps % self.every == 0:
            self.measure(trainer, module)

    def on_train_end(self, trainer: L.Trainer, module: TokenizerModule) -> None:
        """Measures the final latents."""
        self.measure(trainer, module)

    def measure(self, trainer: L.Trainer, module: TokenizerModule) -> None:
        """Encodes the images, trains the small generator, and logs its losses."""
        if not trainer.is_global_zero:
            return
        tokenizer = module.tokenizer if module.ema is None else module.ema.module
        tokenizer.eval()
        size = module.stage.batch_size
        with torch.no_grad():
            latents = [
                torch.cat(
                    [
                        tokenizer.encode(module.resize(part.to(module.device))).mean.float()
                        for part in images.split(size)
                    ]
                )
                for images, _ in (self.train, self.heldout)
            ]
        module.train(module.training)
        result = self.budget.learn(
            latents[0], self.train[1], latents[1], self.heldout[1], num_classes=self.num_classes, device=module.device
        )
        values = {
            "heldout_loss": result.heldout.mean().item(),
            "train_loss": result.train.mean().item(),
            "explained": result.explained,
        }
        for logger in trainer.loggers:
            logger.log_metrics(
                {f"small_generator/{name}": value for name, value in values.items()},
                step=module.first_step + module.steps,
            )
        log.info(
            "  a small generator's held-out loss at step %d: %.4f, training %.4f",
            module.steps,
            values["heldout_loss"],
            values["train_loss"],
        )
