"""A tiny SiT on latents of five classes: its settings, and what a comparison needs."""

import torch

from ldbench.core.latent import LatentSpec
from ldbench.data.tensor_latents import TensorLatents

LATENT = LatentSpec(4, 3, (2, 2))
SMALL = [
    "generator=sit",
    "generator.max_steps=12",
    "generator.batch_size=8",
    "generator.optimizer.warmup_steps=2",
    "generator.backbone.width=24",
]
SMALL += [
    "generator.backbone.depth=1",
    "generator.backbone.num_heads=2",
    "generator.ema_decays=[0.9,0.5]",
    "generator.exported_decay=0.9",
]
SMALL += [
    "sampler=euler",
    "sampler.num_steps=2",
    "callbacks.checkpoint.every=3",
    "callbacks.samples.num_images=6",
    "trainer.accelerator=cpu",
]


def latents() -> TensorLatents:
    rng = torch.Generator().manual_seed(0)
    z = torch.tensor([5.0, 0.0, -2.0]) + torch.tensor([0.1, 1.0, 3.0]) * torch.randn(50, 4, 3, generator=rng)
    return TensorLatents(z, torch.arange(50) % 5, latent=LATENT, num_classes=5)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    theirs = b.state_dict()
    return a.state_dict().keys() == theirs.keys() and all(
        torch.equal(value, theirs[key]) for key, value in a.state_dict().items()
    )
