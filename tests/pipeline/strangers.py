"""Autoencoders of other people: what their `encode` returns differs, and each has something that could be disturbed."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn


class Plain(nn.Module):
    """Latents on a map; it has dropout and batch normalization, draws numbers and keeps a table for later calls."""

    def __init__(self, channels: int = 4, block: int = 8, norm: type[nn.Module] = nn.BatchNorm2d):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, channels, block, block), norm(channels), nn.Dropout(0.5))
        self.decoder = nn.ConvTranspose2d(channels, 3, block, block)
        self.table: Tensor | None = None

    def encode(self, x: Tensor) -> Any:
        z = self.encoder(x)
        if self.table is None:
            self.table = torch.full_like(z[0], 0.1).cumsum(0) + 0 * torch.rand(1)
        return z + self.table.detach()

    def decode(self, z: Tensor) -> Any:
        return self.decoder(z)


class Flattened(Plain):
    """The same latents as tokens."""

    def encode(self, x: Tensor) -> Any:
        return super().encode(x).flatten(2).transpose(1, 2).contiguous()

    def decode(self, z: Tensor) -> Any:
        side = int(z.shape[1] ** 0.5)
        return super().decode(z.transpose(1, 2).unflatten(2, (side, side)).contiguous())


class Returning(Plain):
    """What `encode` returns is a function of the latents."""

    def __init__(self, output: Callable[[Tensor], Any]):
        super().__init__()
        self.output = output

    def encode(self, x: Tensor) -> Any:
        return self.output(super().encode(x))


def seeded(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A module with the weights of a seed; the global random stream stays."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def tiny_images(count: int = 24, size: int = 32) -> Any:
    """Image data of noise in two classes, as `ImageData` describes them."""

    def split(seed: int) -> list[tuple[Tensor, int]]:
        rng = torch.Generator().manual_seed(seed)
        return [(torch.rand(3, size, size, generator=rng) * 2 - 1, index % 2) for index in range(count)]

    return SimpleNamespace(
        name="noise",
        image_size=size,
        num_classes=2,
        class_names=("a", "b"),
        label_safe_flips=True,
        fingerprint=f"noise of {count} x {size}",
        train=split(0),
        test=split(1),
    )
