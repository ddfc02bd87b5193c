"""The LPIPS network: VGG16 features with learned channel weights.

[0] Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, 2018,
https://arxiv.org/abs/1801.03924
"""

from collections.abc import Mapping

import torch
from einops import reduce
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from ldbench.core.distributed import draw_for_global_batch, rank_info

SHIFT = (-0.030, -0.088, -0.188)  # of images in [-1, 1], as in taming-transformers
SCALE = (0.458, 0.448, 0.450)
CHANNELS = (64, 128, 256, 512, 512)
STARTS = (0, 4, 9, 16, 23)  # the five stages in torchvision's `features`; they end in relu1_2, 2_2, 3_3, 4_3, 5_3
ENDS = (4, 9, 16, 23, 30)
CONVOLUTIONS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))


class LPIPSNetwork(nn.Module):
    """The distance of two images: at five stages of VGG16, unit-length features, squared differences, learned weights,
    spatial mean, sum.

    `dropout`: the probability of dropping a channel difference before the learned weights; the official losses train
    with 0.5.
    """

    def __init__(self, *, dropout: float):
        super().__init__()
        features = make_layers(cfgs["D"], batch_norm=False)  # VGG16 without the classifier, which is slow to initialize
        self.stages = nn.ModuleList(features[start:end] for start, end in zip(STARTS, ENDS, strict=True))
        self.heads = nn.ModuleList(nn.Conv2d(channels, 1, kernel_size=1, bias=False) for channels in CHANNELS)
        self.dropout = nn.Dropout(dropout)
        self.shift: Tensor
        self.scale: Tensor
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))

    def features(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
    ) -> list[Tensor]:  # five of (B, C_i, H_i, W_i)
        """The feature maps, before normalization."""
        x = (images - self.shift) / self.scale
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def forward(
        self,
        a: Tensor,  # (B, 3, H, W) in [-1, 1]
        b: Tensor,  # (B, 3, H, W) in [-1, 1]
    ) -> Tensor:  # (B,)
        """The distance of each pair."""
        total = a.new_zeros(len(a))
        for head, x, y in zip(self.heads, self.features(a), self.features(b), strict=True):
            difference = (unit(x) - unit(y)).square()
            total = total + reduce(head(self.drop_channels(difference)), "b 1 h w -> b", "mean")
        return total

    def drop_channels(
        self,
        difference: Tensor,  # (B, C, H, W)
    ) -> Tensor:  # (B, C, H, W)
        """Applies dropout to channel differences, in training, with the same draws for any number of processes."""
        if rank_info().world == 1 or not self.dropout.training or not self.dropout.p:
            return self.dropout(difference)
        return difference * draw_for_global_batch(
            lambda count: self.dropout(difference.new_ones(count, *difference.shape[1:])), len(difference)
        )


def unit(
    x: Tensor,  # (B, C, H, W)
) -> Tensor:
    """Each position's channels divided by (their length + 1e-10)."""
    return x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)


def from_torchvision(vgg16_state: Mapping[str, Tensor], heads: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The layout of taming-transformers from torchvision's VGG16 (`features.0.weight`, ...) and linear heads
    (`lin0.model.1.weight`, ...).
    """
    state = {
        "scaling_layer.shift": torch.tensor(SHIFT).view(1, 3, 1, 1),
        "scaling_layer.scale": torch.tensor(SCALE).view(1, 3, 1, 1),
        **heads,
    }
    for stage, layers in enumerate(CONVOLUTIONS):
        for key in (f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")):
            if f"features.{key}" in vgg16_state:  # missing keys are reported later, by their names in the joint layout
                state[f"net.slice{stage + 1}.{key}"] = vgg16_state[f"features.{key}"]
    return state


def from_taming(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of `LPIPSNetwork` from the layout of taming-transformers (`net.slice1.0.weight`,
    `lin0.model.1.weight`, ...).

    Keys may have the prefix `perceptual_loss.`, as in VMAE's training checkpoints. Raises ValueError naming the missing
    keys.
    """
    prefix = "perceptual_loss." if any(key.startswith("perceptual_loss.") for key in state) else ""
    wanted = {"shift": "scaling_layer.shift", "scale": "scaling_layer.scale"}
    for stage, layers in enumerate(CONVOLUTIONS):
        wanted[f"heads.{stage}.weight"] = f"lin{stage}.model.1.weight"
        for layer in layers:
            for kind in ("weight", "bias"):
                wanted[f"stages.{stage}.{layer}.{kind}"] = f"net.slice{stage + 1}.{layer}.{kind}"
    missing = sorted(prefix + theirs for theirs in wanted.values() if prefix + theirs not in state)
    if missing:
        raise ValueError(
            f"These LPIPS weights lack {len(missing)} of {len(wanted)} tensors, first {missing[0]}. "
            "Expected taming-transformers' layout (VGG16 features and linear heads in one file)."
        )
    return {ours: state[prefix + theirs] for ours, theirs in wanted.items()}
