"""Paths: the images that are decoded on the straight line between two encodings.

On a smooth latent the decoder moves from one image to the other in even steps on a short path, and stays close to real
images in the middle.

[0] Berthelot et al., Understanding and Improving Interpolation in Autoencoders via an Adversarial Regularizer, 2019,
    https://arxiv.org/abs/1807.07543
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Paths:
    """The path of each pair, in root mean squares over the numbers of a point; (B,) float64."""

    length: Tensor  # the sum of all steps
    chord: Tensor  # the distance of the ends
    largest_step: Tensor

    def __post_init__(self) -> None:
        assert self.length.shape == self.chord.shape == self.largest_step.shape

    @property
    def detour(self) -> Tensor:
        """Length over chord: 1 for a linear decoder; NaN for equal ends."""
        return self.length / self.chord


def interpolate(
    start: Tensor,  # (B, N, C)
    end: Tensor,  # (B, N, C)
    num_points: int,
) -> Tensor:  # (num_points, B, N, C)
    """Points at even steps on the straight lines between latents, including the ends.

    Raises ValueError for fewer than two.
    """
    if num_points < 2:
        raise ValueError(f"A path needs at least two points, got {num_points}.")
    share = torch.linspace(0, 1, num_points, dtype=start.dtype, device=start.device)[:, None, None, None]
    return (1 - share) * start + share * end


def measure_paths(
    points: Tensor,  # (K, B, ...): pixels or features along each path
) -> Paths:
    """The lengths of paths along the first axis."""
    points = points.double().flatten(2)
    steps = (points[1:] - points[:-1]).square().mean(dim=2).sqrt()  # (K - 1, B)
    chord = (points[-1] - points[0]).square().mean(dim=1).sqrt()
    return Paths(length=steps.sum(dim=0), chord=chord, largest_step=steps.max(dim=0).values)


def distance_to_data(
    points: Tensor,  # (B, ...)
    data: Iterable[Tensor],  # parts (n, ...) of a dataset
) -> Tensor:  # (B,) float64
    """The root mean square difference to the nearest item of a dataset, which is read part by part.

    Raises ValueError for an empty dataset.
    """
    flat = points.double().flatten(1)
    nearest = torch.full((len(flat),), torch.inf, dtype=torch.float64, device=flat.device)
    for part in data:
        items = part.to(flat.device).double().flatten(1)
        distances = torch.cdist(flat, items, compute_mode="donot_use_mm_for_euclid_dist")
        nearest = torch.minimum(nearest, distances.min(dim=1).values)
    if len(nearest) and not torch.isfinite(nearest).all():
        raise ValueError("The dataset that points are compared with is empty.")
    return nearest / flat.shape[1] ** 0.5
