"""ClassifierModule: the training of a feature network as a classifier, which takes seconds."""

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from ldbench.core.interfaces import ImageSet
from ldbench.training import trainer as trainers
from ldbench.training.batch_sampler import BatchStream
from ldbench.training.optimizer import AdamW


class ClassifierModule(L.LightningModule):
    """Cross-entropy of the logits that a network gives of images moved by a few pixels at random. All that it draws comes from `seed`."""

    def __init__(self, *, network: nn.Module, optimizer: AdamW, max_steps: int, shift: int, seed: int):
        super().__init__()
        self.network = network
        self.optimizer = optimizer
        self.max_steps = max_steps
        self.shift = shift
        self.rng = torch.Generator().manual_seed(seed)

    def configure_optimizers(self) -> dict:
        optimizer = self.optimizer.build(self.network.parameters())
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self.optimizer.factor(step, self.max_steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *_: object, **__: object) -> None:
        if self.optimizer.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.optimizer.clip_norm)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, y = batch
        return F.cross_entropy(self.network(shifted(images, self.shift, rng=self.rng)), y)


def train(
    network: nn.Module, images: ImageSet, *, optimizer: AdamW, max_steps: int, batch_size: int, shift: int, seed: int
) -> nn.Module:
    """A feature network trained on the CPU, in eval mode, with its features and maps of unit RMS over `images`: one seed, one result."""
    task = ClassifierModule(network=network, optimizer=optimizer, max_steps=max_steps, shift=shift, seed=seed)
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
    trainer = trainers.build(
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
        trainer.fit(task, DataLoader(images, batch_sampler=stream))
    except SystemExit:  # how Lightning answers Ctrl-C and SIGTERM
        raise KeyboardInterrupt from None
    network.eval()
    calibrate(network, images, batch_size=batch_size)
    return network


@torch.no_grad()
def calibrate(network: nn.Module, images: ImageSet, *, batch_size: int) -> None:
    """Sets the RMS of the network's features and maps over `images`."""
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
    """Each image moved by up to `shift` pixels in both directions; what comes in repeats the border."""
    if not shift:
        return images
    height, width = images.shape[-2:]
    padded = F.pad(images, (shift, shift, shift, shift), mode="replicate")
    corners = torch.randint(0, 2 * shift + 1, (len(images), 2), generator=rng).tolist()
    return torch.stack(
        [image[:, top : top + height, left : left + width] for image, (top, left) in zip(padded, corners)]
    )
