"""Discriminators: networks that classify images and reconstructions.

[0] Isola et al., Image-to-Image Translation with Conditional Adversarial Networks, 2017,
https://arxiv.org/abs/1611.07004
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
    """One logit per overlapping patch: strided 4x4 convolutions with batch normalization [0], as in LDM and VA-VAE.

    `num_layers` convolutions halve the map; the channels start at `width` and double up to eight times that. With three
    layers a patch has 70 px. The submodule `main` has the key names of the public checkpoints. Raises ValueError unless
    num_layers >= 1.
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
    ) -> Tensor:  # (B, 1, h, w)
        """Logits, high for images."""
        height, width = images.shape[2:]
        smallest = 3 * 2**self.num_layers  # the last two convolutions remove a pixel each, and one must remain
        if min(height, width) < smallest:
            most = int(math.log2(min(height, width) / 3)) if min(height, width) >= 6 else 0
            cure = f"Set the discriminator's num_layers={most}." if most else "Train without it: one layer needs 6 px."
            raise ValueError(
                f"A PatchGAN of {self.num_layers} layers needs images of at least {smallest} px, got {height}x{width}. "
                f"{cure}"
            )
        return self.main(images)


def convolution(channels: int, width: int, *, stride: int, bias: bool) -> nn.Conv2d:
    """A 4x4 convolution with weights of standard deviation 0.02."""
    layer = nn.Conv2d(channels, width, kernel_size=4, stride=stride, padding=1, bias=bias)
    nn.init.normal_(layer.weight, std=0.02)
    return layer


def batch_norm(width: int) -> SharedBatchNorm:
    """Batch normalization with scales drawn around 1.

    Statistics are shared by all processes, unlike in the public code.
    """
    layer = SharedBatchNorm(width)
    nn.init.normal_(layer.weight, mean=1.0, std=0.02)
    return layer


class Readouts(Protocol):
    """A network that returns its features at several depths, for example a teacher."""

    def readouts(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]; the network normalizes them itself
        depths: Sequence[int],  # blocks, counted from 0
    ) -> list[Tensor]:
        """The features of the embedding and of these blocks, (B, D, P) each, with gradients to the images."""
        ...


class FrozenFeatures(nn.Module):
    """Logits per patch and depth of a frozen network, by small convolutional heads: VAR's discriminator [2], as in
    MAETok [3].

    `width`: the teacher's feature channels (D). `depths`: the blocks that are read in addition to the embedding. Images
    are resized to `input_size` px: smaller ones are enlarged (bicubic); larger ones are, in training, cropped half of
    the time (one random position per batch) and otherwise shrunk (area). Draws use torch's global stream.

    The teacher is stored in a tuple, so that `nn.Module` does not register it: its weights are in no checkpoint,
    optimizer or parameter count, and `train()` does not change its mode. It is moved to the device of the images
    instead. Batch statistics are shared by all processes, as in the official heads. Raises ValueError for an even
    kernel size, numbers out of range, and a teacher without `readouts`.
    """

    def __init__(self, *, teacher: Readouts, width: int, depths: Sequence[int], kernel_size: int, input_size: int):
        super().__init__()
        if not hasattr(teacher, "readouts"):
            raise ValueError(
                f"{type(teacher).__name__} does not return features at several depths. "
                "Choose a teacher such as dino_v1_small or dinov2_small."
            )
        if isinstance(depths, int) or min(width, kernel_size, input_size) < 1:
            raise ValueError(
                "A discriminator on frozen features needs a list of depths, and width, kernel_size and input_size of "
                f"at least 1, got {depths}, {width}, {kernel_size} and {input_size}."
            )
        if kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size must be odd, so that a head keeps the number of patches, got {kernel_size}. "
                f"Choose {kernel_size + 1}."
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
    ) -> Tensor:  # (B, (1 + depths) * P)
        """Logits, high for images."""
        features = self.teacher(images.device).readouts(self.fit(images), self.depths)
        assert len(features) == len(self.heads), "a teacher returns its embedding and each requested depth"
        width = features[0].shape[1]
        if width != self.width:
            raise ValueError(
                f"The discriminator's teacher has {width} features, but its heads take {self.width}. "
                f"Set discriminator.width={width}."
            )
        logits = [head(readout) for head, readout in zip(self.heads, features, strict=True)]  # (B, 1, P) each
        return rearrange(logits, "level b 1 p -> b (level p)")

    def teacher(self, device: torch.device) -> Readouts:
        """The frozen network, on a device."""
        (teacher,) = self.held
        # Other terms may share the teacher and have moved it.
        if isinstance(teacher, nn.Module) and any(p.device != device for p in teacher.parameters()):
            teacher.to(device)
        return teacher

    def fit(self, images: Tensor) -> Tensor:
        """Images at the teacher's input size."""
        height, width = images.shape[2:]
        size = self.input_size
        if min(height, width) >= size < max(height, width):
            if self.training and torch.rand(()) < 0.5:
                top, left = (int(torch.randint(side - size + 1, ())) for side in (height, width))
                return images[:, :, top : top + size, left : left + size]
            return resize(images, size, "area")
        return images if height == width == size else resize(images, size, "bicubic")


def resize(images: Tensor, size: int, mode: str) -> Tensor:
    """`F.interpolate` of a separable mode as two matrix products: its own backward pass is nondeterministic on CUDA."""
    with torch.autocast(images.device.type, enabled=False):
        rows, columns = (resize_weights(side, size, mode, images.device) for side in images.shape[2:])
        return torch.einsum("oh,bchw,pw->bcop", rows, images.float(), columns)


def resize_weights(side: int, size: int, mode: str, device: torch.device) -> Tensor:
    """The weight of each of `side` input pixels in each of `size` output pixels, (size, side)."""
    return F.interpolate(torch.eye(side, device=device)[None, None], size=(size, side), mode=mode)[0, 0]


def head(width: int, kernel_size: int) -> nn.Sequential:
    """A head from features (B, D, P) to logits (B, 1, P)."""
    return nn.Sequential(
        block(width, 1), Residual(block(width, kernel_size)), spectral(nn.Conv1d(width, 1, kernel_size=1))
    )


def block(width: int, kernel_size: int) -> nn.Sequential:
    """A circular convolution along the patches, with batch normalization."""
    layer = nn.Conv1d(width, width, kernel_size=kernel_size, padding=kernel_size // 2, padding_mode="circular")
    return nn.Sequential(spectral(layer), SharedBatchNorm(width, eps=1e-6), nn.LeakyReLU(SLOPE))


def spectral(layer: nn.Conv1d) -> nn.Module:
    """A layer with spectral normalization."""
    return spectral_norm(layer, eps=1e-12)


class Residual(nn.Module):
    """The sum of a branch and its input, scaled to the input's variance."""

    def __init__(self, branch: nn.Module):
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        """(x + branch(x)) / sqrt(2)."""
        return (x + self.branch(x)) / math.sqrt(2)
