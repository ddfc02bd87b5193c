"""Paths: what is decoded on the straight line between two encodings.

The decoder of a smooth latent goes from one image to the other in even steps and on a short way, and is among images in the middle too.

[0] Berthelot et al., Understanding and Improving Interpolation in Autoencoders via an Adversarial Regularizer, 2019, https://arxiv.org/abs/1807.07543
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Paths:
    """The way of each pair, in root mean squares of what the points consist of; (B,) float64."""

    length: Tensor  # of all steps together
    chord: Tensor  # from end to end at once
    largest_step: Tensor

    def __post_init__(self) -> None:
        assert self.length.shape == self.chord.shape == self.largest_step.shape

    @property
    def detour(self) -> Tensor:
        """How much longer than straight the way is: 1 for a linear decoder; not a number where the ends are one."""
        return self.length / self.chord


def interpolate(
    start: Tensor,  # (B, N, C)
    end: Tensor,  # (B, N, C)
    num_points: int,
) -> Tensor:  # (num_points, B, N, C)
    """Even steps on the straight lines between latents, the ends among them. Raises ValueError for fewer than two."""
    if num_points < 2:
        raise ValueError(f"A path has two points or more, got {num_points}.")
    share = torch.linspace(0, 1, num_points, dtype=start.dtype, device=start.device)[:, None, None, None]
    return (1 - share) * start + share * end


def measure_paths(
    points: Tensor,  # (K, B, ...): pixels or features along each way
) -> Paths:
    """Lengths along the first axis."""
    points = points.double().flatten(2)
    steps = (points[1:] - points[:-1]).square().mean(dim=2).sqrt()  # (K - 1, B)
    chord = (points[-1] - points[0]).square().mean(dim=1).sqrt()
    return Paths(length=steps.sum(dim=0), chord=chord, largest_step=steps.max(dim=0).values)


def distance_to_data(
    points: Tensor,  # (B, ...)
    data: Iterable[Tensor],  # parts (n, ...) of a data set
) -> Tensor:  # (B,) float64
    """The root mean square of the difference to the nearest item of a data set, which is read part by part.

    Raises ValueError for a data set without items.
    """
    flat = points.double().flatten(1)
    nearest = torch.full((len(flat),), torch.inf, dtype=torch.float64, device=flat.device)
    for part in data:
        items = part.to(flat.device).double().flatten(1)
        apart = torch.cdist(flat, items, compute_mode="donot_use_mm_for_euclid_dist")
        nearest = torch.minimum(nearest, apart.min(dim=1).values)
    if len(nearest) and not torch.isfinite(nearest).all():
        raise ValueError("The data set that points are compared to has no items.")
    return nearest / flat.shape[1] ** 0.5
