"""Samples: what a generator makes of the same noise as its training goes on. Changes no number."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import lightning as L
import torch
from torch import Tensor

from ldbench.core.interfaces import Guidance, Sampler
from ldbench.training.callbacks import show
from ldbench.training.generator_module import GeneratorModule


class Stream(Protocol):
    """Noise of some images for every step."""

    def normal(self, step: int, shape: torch.Size | tuple[int, ...]) -> Tensor: ...


class Samples(L.Callback):
    """Writes samples of the classes in turn to `folder/images/<step>-samples.png`, every so many optimizer steps and at the end.

    They are drawn from the weights that will be exported; each begins at the same noise every time.
    """

    def __init__(
        self,
        *,
        every: int,
        num_images: int,
        folder: Path,
        sampler: Sampler,
        guidance: Guidance,
        noise_of: Callable[[Sequence[int]], Stream],  # image indices -> their noise
        picture_of: Callable[[Tensor], Tensor],  # raw latents (K, N, C) -> (3, H, W) uint8
    ):
        self.every = every
        self.folder = folder / "images"
        self.num_images = num_images
        self.sampler = sampler
        self.guidance = guidance
        self.noise_of = noise_of
        self.picture_of = picture_of

    def on_train_batch_end(
        self, trainer: L.Trainer, task: GeneratorModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.every and task.ended_step and task.steps % self.every == 0 and task.steps != task.stage.max_steps:
            self.draw(trainer, task)

    def on_train_end(self, trainer: L.Trainer, task: GeneratorModule) -> None:
        self.draw(trainer, task)

    def draw(self, trainer: L.Trainer, task: GeneratorModule) -> None:
        """One picture, by one process; the others of a sharded network compute with it."""
        if not (trainer.is_global_zero or task.sharded):
            return
        generator = task.exported()
        latent, stream = generator.backbone.latent, self.noise_of(range(self.num_images))
        noise = stream.normal(0, (self.num_images, latent.num_tokens, latent.channels)).to(task.device)
        y = torch.arange(self.num_images, device=task.device) % generator.backbone.num_classes
        generator.eval()
        z = generator.sample(noise, y, self.sampler, self.guidance, stream=stream)
        task.train(task.training)
        if trainer.is_global_zero:
            show(trainer, self.picture_of(z.cpu()), folder=self.folder, name="samples", what="samples", step=task.steps)
