"""LPIPS as a loss term, on weights that the user hands over.

[0] Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, 2018, https://arxiv.org/abs/1801.03924
"""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from ldbench.core.tokenizer import Reconstruction
from ldbench.layers.lpips import LPIPSNetwork, from_taming, from_torchvision
from ldbench.losses.base_term import BaseTerm


class LPIPS(BaseTerm):
    """The mean LPIPS distance between images and their reconstruction, frozen.

    `weights`: tensors in the layout of taming-transformers; or torchvision's VGG16, with the linear `heads` apart. `dropout`: 0.5 is what
    the official VMAE trains with (its train mode re-enables the dropout before the linear heads); 0 is LPIPS as it is measured.
    Raises ValueError when a tensor is missing or of another shape.
    """

    revision: ClassVar[int] = 2  # 1: drew a classifier that nobody used, before the terms that follow it
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
        return self.network(images, recon.images).mean()
