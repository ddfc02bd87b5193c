"""Networks that tell reconstructions from images.

[0] Isola et al., Image-to-Image Translation with Conditional Adversarial Networks, 2017, https://arxiv.org/abs/1611.07004
[1] Sauer et al., StyleGAN-T, 2023, https://arxiv.org/abs/2301.09515 (heads on a frozen network)
[2] Tian et al., Visual Autoregressive Modeling, 2024, https://arxiv.org/abs/2404.02905
[3] Chen et al., Masked Autoencoders Are Effective Tokenizers (MAETok), 2025, https://arxiv.org/abs/2502.03444
"""

import math
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ldbench.layers.batch_norm import SharedBatchNorm

SLOPE = 0.2  # of every LeakyReLU here


class PatchGAN(nn.Module):
    """One logit for each overlapping patch of an image: strided 4x4 convolutions with batch normalisation [0], as LDM and VA-VAE train it.

    `num_layers` convolutions halve the map; the channels begin at `width` and double up to eight times that. Three layers see patches of 70 px.
    The submodule `main` has the key names of the public checkpoints. Raises ValueError unless num_layers >= 1.
    """

    def __init__(self, *, num_layers: int, width: int):
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"PatchGAN needs num_layers of at least 1, got {num_layers}.")
        if width < 1:
            raise ValueError(f"PatchGAN needs a width of at least 1, got {width}.")
        self.num_layers = num_layers
        widths = [width * min(2**n, 8) for n in range(num_layers + 1)]
        layers = [convolution(3, width, stride=2, bias=True), nn.LeakyReLU(SLOPE)]
        for n in range(1, num_layers + 1):
            stride = 2 if n < num_layers else 1
            layers += [
                convolution(widths[n - 1], widths[n], stride=stride, bias=False),
                batch_norm(widths[n]),
                nn.LeakyReLU(SLOPE),
            ]
        self.main = nn.Sequential(*layers, convolution(widths[-1], 1, stride=1, bias=True))

    def forward(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
    ) -> Tensor:  # (B, 1, h, w) logits, high for what looks like an image
        height, width = images.shape[2:]
        least = (
            3 * 2**self.num_layers
        )  # the two convolutions after the halvings take a pixel each, and one must be left
        if min(height, width) < least:
            most = int(math.log2(min(height, width) / 3)) if min(height, width) >= 6 else 0
            cure = (
                f"Set the discriminator's num_layers={most}."
                if most
                else "Train without it: even one layer needs 6 px."
            )
            raise ValueError(
                f"A PatchGAN of {self.num_layers} layers needs images of at least {least} px, got {height}x{width}. {cure}"
            )
        return self.main(images)


def convolution(channels: int, width: int, *, stride: int, bias: bool) -> nn.Conv2d:
    """A 4x4 convolution whose weights have standard deviation 0.02."""
    layer = nn.Conv2d(channels, width, kernel_size=4, stride=stride, padding=1, bias=bias)
    nn.init.normal_(layer.weight, std=0.02)
    return layer


def batch_norm(width: int) -> nn.BatchNorm2d:
    """Batch normalisation whose scales scatter around 1. Several processes share the statistics, where the public code has each use its own."""
    layer = SharedBatchNorm(width)
    nn.init.normal_(layer.weight, mean=1.0, std=0.02)
    return layer


class Readouts(Protocol):
    """A network that shows its features at several depths. Whoever has these takes part; `teachers` has one."""

    def readouts(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]; the network's own statistics are its own matter
        depths: Sequence[int],  # blocks, counted from 0
    ) -> list[Tensor]:  # of the embedding and of each of these blocks, (B, D, P), with gradients to the images
        ...


class FrozenFeatures(nn.Module):
    """Logits at each patch and depth of a frozen network, by small convolutional heads: VAR's discriminator [2], which MAETok took over [3].

    `width`: the teacher's feature channels (D). `depths`: the blocks that are read, besides the embedding, which always is.
    Images go in at `input_size` px: smaller ones are enlarged (bicubic); larger ones are, in training, cropped half of the time
    (one random place for the batch) and otherwise shrunk (area). Draws come from torch's global stream.

    The teacher is kept in a tuple, where `nn.Module` does not look: it is no submodule, so that its weights enter no checkpoint, no optimizer
    and no parameter count, and `train()` leaves it alone. It follows the images to their device instead.
    Several processes share the batch statistics, as those of the official heads do.
    Raises ValueError for an even kernel size, numbers out of range, and a teacher without `readouts`.
    """

    def __init__(self, *, teacher: Readouts, width: int, depths: Sequence[int], kernel_size: int, input_size: int):
        super().__init__()
        if not hasattr(teacher, "readouts"):
            raise ValueError(
                f"{type(teacher).__name__} shows no features at its depths. Choose a teacher such as dino_v1_small or dinov2_small."
            )
        if isinstance(depths, int) or min(width, kernel_size, input_size) < 1:
            raise ValueError(
                "A discriminator on frozen features needs a list of depths, and width, kernel_size and input_size of at least 1, "
                f"got {depths}, {width}, {kernel_size} and {input_size}."
            )
        if kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size must be odd, so that a head keeps its length, got {kernel_size}. Choose {kernel_size + 1}."
            )
        if isinstance(teacher, nn.Module):
            teacher.eval().requires_grad_(False)
        self.held = (teacher,)
        self.width = width
        self.depths = tuple(depths)
        self.input_size = input_size
        self.heads = nn.ModuleList(head(width, kernel_size) for _ in range(1 + len(self.depths)))

    def forward(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
    ) -> Tensor:  # (B, (1 + depths) * P) logits, high for what looks like an image
        features = self.teacher(images.device).readouts(self.fit(images), self.depths)
        assert len(features) == len(self.heads), "a teacher shows its embedding and each depth asked for"
        given = features[0].shape[1]
        if given != self.width:
            raise ValueError(
                f"The discriminator's teacher has {given} features, but its heads take {self.width}. Set discriminator.width={given}."
            )
        logits = [head(readout) for head, readout in zip(self.heads, features, strict=True)]  # (B, 1, P) each
        return rearrange(logits, "level b 1 p -> b (level p)")

    def teacher(self, device: torch.device) -> Readouts:
        """The frozen network, on a device."""
        (teacher,) = self.held
        if isinstance(teacher, nn.Module) and any(
            p.device != device for p in teacher.parameters()
        ):  # others may share it, and move it
            teacher.to(device)
        return teacher

    def fit(self, images: Tensor) -> Tensor:
        """Images at the size that the teacher takes."""
        height, width = images.shape[2:]
        size = self.input_size
        if min(height, width) >= size < max(height, width):
            if self.training and torch.rand(()) < 0.5:
                top, left = (int(torch.randint(side - size + 1, ())) for side in (height, width))
                return images[:, :, top : top + size, left : left + size]
            return resize(images, size, "area")
        return images if height == width == size else resize(images, size, "bicubic")


def resize(images: Tensor, size: int, mode: str) -> Tensor:
    """What `F.interpolate` gives for a separable mode, by two matrix products: its own backward pass on CUDA adds in no fixed order."""
    with torch.autocast(images.device.type, enabled=False):
        rows, columns = (shares(side, size, mode, images.device) for side in images.shape[2:])
        return torch.einsum("oh,bchw,pw->bcop", rows, images.float(), columns)


def shares(side: int, size: int, mode: str, device: torch.device) -> Tensor:
    """How much each of `side` pixels gives to each of `size` new ones, (size, side)."""
    return F.interpolate(torch.eye(side, device=device)[None, None], size=(size, side), mode=mode)[0, 0]


def head(width: int, kernel_size: int) -> nn.Sequential:
    """From features (B, D, P) to logits (B, 1, P)."""
    return nn.Sequential(
        block(width, 1), Residual(block(width, kernel_size)), spectral(nn.Conv1d(width, 1, kernel_size=1))
    )


def block(width: int, kernel_size: int) -> nn.Sequential:
    """A convolution along the patches, as if they lay on a circle, with batch normalisation."""
    layer = nn.Conv1d(width, width, kernel_size=kernel_size, padding=kernel_size // 2, padding_mode="circular")
    return nn.Sequential(spectral(layer), SharedBatchNorm(width, eps=1e-6), nn.LeakyReLU(SLOPE))


def spectral(layer: nn.Conv1d) -> nn.Module:
    """A layer whose largest singular value is held at 1."""
    return spectral_norm(layer, eps=1e-12)


class Residual(nn.Module):
    """The sum of a branch and its input, at the input's variance."""

    def __init__(self, branch: nn.Module):
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.branch(x)) / math.sqrt(2)
