"""A loss on differences of neighboring pixels, so that edges are reconstructed where they are."""

from typing import ClassVar

from torch import Tensor

from ldbench.core.tokenizer import Reconstruction
from ldbench.losses.base_term import BaseTerm


class Example(BaseTerm):
    """Mean absolute error of horizontal and vertical differences, in [-1, 1] per pixel."""

    revision: ClassVar[int] = 1  # raised when a change of code changes the numbers
    reconstructs: ClassVar[bool] = True  # whether it pulls reconstructions towards the images

    def forward(
        self,
        images: Tensor,  # (B, 3, H, W)
        recon: Reconstruction,
        y: Tensor,  # (B,)
    ) -> Tensor:
        """The loss of a batch."""
        error = recon.images.float() - images.float()
        return error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
