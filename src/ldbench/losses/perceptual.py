"""Perceptual loss terms: LPIPS, with weights that the user provides, and the distance of a teacher's maps.

[0] Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, 2018,
https://arxiv.org/abs/1801.03924
[1] Johnson et al., Perceptual Losses for Real-Time Style Transfer and Super-Resolution, 2016,
https://arxiv.org/abs/1603.08155 (section 3.2, feature reconstruction)
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ldbench.core.interfaces import MapTeacher
from ldbench.core.tokenizer import Reconstruction
from ldbench.layers.lpips import LPIPSNetwork, from_taming, from_torchvision
from ldbench.losses.base_term import BaseTerm


class LPIPS(BaseTerm):
    """The mean LPIPS distance between images and their reconstructions; the network is frozen.

    `weights`: tensors in the layout of taming-transformers, or torchvision's VGG16 with separate linear `heads`.
    `dropout`: the official VMAE trains with 0.5 (its train mode re-enables the dropout before the linear heads); the
    metric uses 0. Raises ValueError if a tensor is missing or has another shape.
    """

    revision: ClassVar[int] = 2  # 1: drew an unused classifier before the terms that follow it
    reconstructs: ClassVar[bool] = True

    def __init__(
        self,
        *,
        weight: float,
        start: int,
        warmup: int,
        dropout: float,
        weights: Mapping[str, Tensor],
        heads: Mapping[str, Tensor] | None,
    ):
        super().__init__(weight=weight, start=start, warmup=warmup)
        self.network = LPIPSNetwork(dropout=dropout)
        try:
            joint = dict(weights) if heads is None else from_torchvision(weights, heads)
            self.network.load_state_dict(from_taming(joint))
        except RuntimeError as error:
            raise ValueError(f"These LPIPS weights are not VGG16's: {error}") from error
        self.network.requires_grad_(False)

    def forward(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
        recon: Reconstruction,
        y: Tensor,  # (B,)
    ) -> Tensor:
        """The loss of a batch."""
        return self.network(images, recon.images).mean()


class TeacherDistance(BaseTerm):
    """The mean squared difference of a frozen teacher's maps of images and of their reconstructions [1].

    Raises ValueError for a teacher whose features have no gradients to the images.
    """

    revision: ClassVar[int] = 1
    reconstructs: ClassVar[bool] = True

    def __init__(self, *, weight: float, start: int, warmup: int, teacher: MapTeacher):
        super().__init__(weight=weight, start=start, warmup=warmup)
        if not isinstance(teacher, MapTeacher):
            raise ValueError(
                f"A {type(teacher).__name__} has no maps with gradients to the images. Choose the teacher of a feature "
                "network, such as digits."
            )
        self.teacher = teacher

    def forward(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
        recon: Reconstruction,
        y: Tensor,  # (B,)
    ) -> Tensor:
        """The loss of a batch."""
        with torch.no_grad():
            target = self.teacher.maps(images)
        return F.mse_loss(self.teacher.maps(recon.images), target)
