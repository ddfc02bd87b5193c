"""ClassifierModule: the training of a small feature network as a classifier."""

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from ldbench.core.interfaces import ImageSet
from ldbench.training.batch_sampler import BatchStream
from ldbench.training.optimizer import AdamW
from ldbench.training.trainer import build_trainer


class ClassifierModule(L.LightningModule):
    """Trains a network by cross-entropy on images shifted by a few random pixels.

    All random numbers come from `seed`.
    """

    def __init__(self, *, network: nn.Module, optimizer: AdamW, max_steps: int, shift: int, seed: int):
        super().__init__()
        self.network = network
        self.optimizer = optimizer
        self.max_steps = max_steps
        self.shift = shift
        self.rng = torch.Generator().manual_seed(seed)

    def configure_optimizers(self) -> Any:
        """The optimizer and its learning rate schedule."""
        optimizer = self.optimizer.build(self.network.parameters())
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self.optimizer.factor(step, self.max_steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *_: object, **__: object) -> None:
        """Clips the gradients by the optimizer's `clip_norm`."""
        if self.optimizer.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.optimizer.clip_norm)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The cross-entropy of a batch."""
        images, y = batch
        return F.cross_entropy(self.network(shifted(images, self.shift, rng=self.rng)), y)


def train(
    network: nn.Module, images: ImageSet, *, optimizer: AdamW, max_steps: int, batch_size: int, shift: int, seed: int
) -> nn.Module:
    """Trains a feature network on the CPU, scales its features and maps to unit RMS over `images`,
    and returns it in eval mode.
    """
    module = ClassifierModule(network=network, optimizer=optimizer, max_steps=max_steps, shift=shift, seed=seed)
    stream = BatchStream(
        num_images=len(images),
        batch_size=batch_size,
        num_batches=max_steps,
        seed=seed,
        start=lambda: 0,
        rank=0,
        world=1,
        overfit_batches=0,
        count_passes=False,
    )
    trainer = build_trainer(
        accelerator="cpu",
        devices=1,
        num_nodes=1,
        strategy="auto",
        precision="fp32",
        deterministic=True,
        callbacks=[],
        loggers=[],
    )
    try:
        trainer.fit(module, DataLoader(images, batch_sampler=stream))
    except SystemExit:  # Lightning raises it at Ctrl-C and SIGTERM
        raise KeyboardInterrupt from None
    network.eval()
    calibrate(network, images, batch_size=batch_size)
    return network


@torch.no_grad()
def calibrate(network: nn.Module, images: ImageSet, *, batch_size: int) -> None:
    """Sets the network's buffers to the RMS of its features and maps over `images`."""
    squares: dict[str, list[Tensor]] = {"feature_rms": [], "map_rms": []}
    for batch, _ in DataLoader(images, batch_size=batch_size):
        squares["feature_rms"].append(network.raw_features(batch).double().square().mean(dim=1))
        squares["map_rms"].append(network.raw_map(batch).double().square().mean(dim=(1, 2, 3)))
    for name, by_image in squares.items():
        getattr(network, name).copy_(torch.cat(by_image).mean().sqrt())


def shifted(
    images: Tensor,  # (B, 3, H, W)
    shift: int,  # px
    *,
    rng: torch.Generator,
) -> Tensor:  # (B, 3, H, W)
    """Each image shifted by up to `shift` pixels in both directions, with replicated borders."""
    if not shift:
        return images
    height, width = images.shape[-2:]
    padded = F.pad(images, (shift, shift, shift, shift), mode="replicate")
    corners = torch.randint(0, 2 * shift + 1, (len(images), 2), generator=rng).tolist()
    return torch.stack(
        [image[:, top : top + height, left : left + width] for image, (top, left) in zip(padded, corners)]
    )
