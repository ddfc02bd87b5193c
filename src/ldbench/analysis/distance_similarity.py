"""Distance similarity: how the cosine of two tokens on a grid falls with their Manhattan distance.

[0] Singh et al., What Matters for Representation Alignment: Global Information or Spatial Structure?, 2025,
    https://arxiv.org/abs/2512.10794 (LDS and CDS)
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

ROUNDING = 1e-9  # of a share of a whole number
FEWEST = 3  # distances under a slope


@dataclass(frozen=True)
class DistanceSimilarity:
    """The mean cosine of the pairs of tokens at each Manhattan distance, from 0 to H + W - 2."""

    cosine: Tensor  # (n, H + W - 1) float64
    pairs: Tensor  # (H + W - 1,) float64: their numbers

    @property
    def farthest(self) -> int:
        """The largest distance: H + W - 2."""
        return len(self.pairs) - 1

    def local(
        self,
        share: float,  # of the largest distance, from which tokens count as far
    ) -> Tensor | None:  # (n,)
        """LDS [0]: the mean cosine of neighbors minus that of tokens far from each other, at least two cells; None
        where no tokens are.
        """
        far = max(2, math.ceil(share * self.farthest - ROUNDING))
        if far > self.farthest:
            return None
        return self.cosine[:, 1] - self.cosine[:, far:] @ self.pairs[far:] / self.pairs[far:].sum()

    def cross(
        self,
        share: float,  # of the largest distance, up to which the line is fitted
    ) -> Tensor | None:  # (n,)
        """CDS [0]: minus the slope of the least-squares line of the mean cosine over the distances from 1, of which
        there are at least three; None for a grid without them.
        """
        last = max(FEWEST, round(share * self.farthest))
        if last > self.farthest:
            return None
        distance = torch.arange(1, last + 1).to(self.cosine)
        centered = distance - distance.mean()
        return -self.cosine[:, 1 : last + 1] @ centered / centered.square().sum()


def distance_similarity(
    maps: Tensor,  # (n, C, H, W)
) -> DistanceSimilarity:
    """The cosines of all pairs of tokens by their distance, in float64; a token of zeros has the cosine 0 with all.

    Raises ValueError for maps of a single token, and for maps that are not finite.
    """
    height, width = maps.shape[2:]
    if height * width < 2:
        raise ValueError(f"A map of {height}x{width} has no tokens at a distance.")
    if not torch.isfinite(maps).all():
        raise ValueError("The latents contain NaN or infinity. Check the tokenizer before measuring it.")
    unit = F.normalize(maps.double(), dim=1)
    padded = (2 * height - 1, 2 * width - 1)  # no token meets another around the border
    sums = torch.fft.irfft2(torch.fft.rfft2(unit, s=padded).abs().square().sum(dim=1), s=padded)  # by offset
    rows, columns = (
        torch.arange(2 * size - 1, device=maps.device) - (size - 1) for size in (height, width)
    )  # -(size - 1) to size - 1
    sums = torch.roll(sums, (height - 1, width - 1), dims=(1, 2)).flatten(1)
    distance = (rows.abs()[:, None] + columns.abs()[None]).flatten()
    pairs = ((height - rows.abs())[:, None] * (width - columns.abs())[None]).flatten().to(sums)
    members = F.one_hot(distance).to(sums)  # (offsets, H + W - 1)
    return DistanceSimilarity(cosine=sums @ members / (pairs @ members), pairs=pairs @ members)
