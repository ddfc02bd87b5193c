"""Samples: a generator's samples from the same noise during its training. Changes no number."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import lightning as L
import torch
from torch import Tensor

from ldbench.core.interfaces import Guidance, Sampler
from ldbench.training.callbacks import log_picture
from ldbench.training.generator_module import GeneratorModule


class Stream(Protocol):
    """Noise of some images for every step."""

    def normal(self, step: int, shape: torch.Size | tuple[int, ...]) -> Tensor:
        """The noise of one step."""
        ...


class Samples(L.Callback):
    """Writes samples of the classes in turn to `folder/images/<step>-samples.png`, every `every` steps and at the end.

    They are sampled with the weights that will be exported, each from the same noise every time.
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
        self, trainer: L.Trainer, module: GeneratorModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Samples at every `every`-th optimizer step."""
        if (
            self.every
            and module.completed_step
            and module.steps % self.every == 0
            and module.steps != module.stage.max_steps
        ):
            self.draw(trainer, module)

    def on_train_end(self, trainer: L.Trainer, module: GeneratorModule) -> None:
        """Draws the final samples."""
        self.draw(trainer, module)

    def draw(self, trainer: L.Trainer, module: GeneratorModule) -> None:
        """Draws one picture in rank 0; the other ranks of a sharded network take part in the computation."""
        if not (trainer.is_global_zero or module.sharded):
            return
        generator = module.exported()
        latent, stream = generator.backbone.latent, self.noise_of(range(self.num_images))
        noise = stream.normal(0, (self.num_images, latent.num_tokens, latent.channels)).to(module.device)
        y = torch.arange(self.num_images, device=module.device) % generator.backbone.num_classes
        generator.eval()
        z = generator.sample(noise, y, self.sampler, self.guidance, stream=stream)
        module.train(module.training)
        if trainer.is_global_zero:
            log_picture(
                trainer, self.picture_of(z.cpu()), folder=self.folder, name="samples", what="samples", step=module.steps
            )
