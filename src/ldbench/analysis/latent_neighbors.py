"""Latents between an image and one of its nearest training images, as the interpolated FID decodes them.

[0] Interpolated FID, 2026, https://arxiv.org/abs/2603.05630
[1] Shoemake, Animating Rotation with Quaternion Curves, 1985, https://doi.org/10.1145/325165.325242 (slerp)
"""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

Path = Literal["slerp", "linear"]

PARALLEL = 1e-4  # sine of an angle below which a great circle and a straight line agree


def nearest_by_cosine(
    z: Tensor,  # (M, D)
    training: Iterable[Tensor],  # of (n, D), in order
    k: int,
) -> Tensor:  # (M, k) indices of training rows, the nearest first
    """The `k` training rows of the largest cosine with each row. Raises ValueError for fewer training rows."""
    unit, first = torch.nn.functional.normalize(z, dim=1), 0
    cosines, found = z.new_empty(len(z), 0), torch.empty(len(z), 0, dtype=torch.long, device=z.device)
    for rows in training:
        new = unit @ torch.nn.functional.normalize(rows.to(z), dim=1).T  # (M, n)
        best = new.topk(min(k, len(rows)), dim=1)
        cosines, found = torch.cat([cosines, best.values], dim=1), torch.cat([found, best.indices + first], dim=1)
        order = cosines.argsort(dim=1, descending=True, stable=True)[:, :k]
        cosines, found = cosines.gather(1, order), found.gather(1, order)
        first += len(rows)
    if found.shape[1] < k:
        raise ValueError(f"There are {first} training latents, and {k} neighbors of each image are asked for.")
    return found


def choose_neighbors(
    z: Tensor,  # (M, D)
    neighbors: Tensor,  # (M, k, D)
    u: Tensor,  # (M,) uniform in [0, 1)
) -> Tensor:  # (M,) in 0 .. k - 1
    """One neighbor of each row, with probabilities softmax(-mean squared difference), by a uniform number each."""
    errors = (neighbors - z[:, None]).double().square().mean(dim=2)  # (M, k)
    cumulative = (-errors).softmax(dim=1).cumsum(dim=1)
    return (cumulative < u.double()[:, None]).sum(dim=1).clamp(max=neighbors.shape[1] - 1)


def between(
    z: Tensor,  # (M, D)
    others: Tensor,  # (M, D)
    alpha: float,  # 0: z, 1: others
    path: Path,
) -> Tensor:  # (M, D)
    """The points at a share `alpha` of the way, on straight lines or on great circles [1].

    On great circles the weights are sin((1 - alpha) w) / sin w and sin(alpha w) / sin w, w the angle of two latents;
    latents that are nearly parallel, opposite or zero have straight lines.
    """
    straight = (1 - alpha) * z + alpha * others
    if path == "linear":
        return straight
    angle = torch.nn.functional.cosine_similarity(z.double(), others.double(), dim=1).clamp(-1, 1).acos()[:, None]
    sine = angle.sin()
    weights = [((share * angle).sin() / sine).to(z) for share in (1 - alpha, alpha)]
    return torch.where(sine > PARALLEL, weights[0] * z + weights[1] * others, straight)
