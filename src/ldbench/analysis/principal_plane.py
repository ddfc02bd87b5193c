"""The principal plane: where latents lie in the two directions in which they vary most."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PrincipalPlane:
    """Coordinates in the two leading principal components."""

    points: Tensor  # (n, 2) float64, centered; in units of the features
    explained: tuple[float, float]  # the share of the variance in each; 0 for features without variance


def principal_plane(
    features: Tensor,  # (n, D)
) -> PrincipalPlane:
    """The principal plane of features, in float64.

    Each axis is turned so that its coordinate of largest absolute value is positive: the sign of a component is
    arbitrary. Raises ValueError for fewer than three items, and for features that are not finite.
    """
    if len(features) < 3 or not torch.isfinite(features).all():
        raise ValueError(f"A principal plane needs at least three finite items, got {len(features)}.")
    centered = features.double() - features.double().mean(dim=0)
    if centered.shape[1] < 2:
        centered = torch.cat([centered, torch.zeros_like(centered[:, :1])], dim=1)
    if centered.shape[1] <= len(centered):
        squares, axes = torch.linalg.eigh(centered.T @ centered)
        points = centered @ axes[:, -2:].flip(1)
    else:
        squares, axes = torch.linalg.eigh(centered @ centered.T)
        points = axes[:, -2:].flip(1) * squares[-2:].flip(0).clamp(min=0).sqrt()
    largest = points.gather(0, points.abs().argmax(dim=0, keepdim=True))
    points = torch.where(largest < 0, -points, points)
    total = centered.square().sum()
    shares = points.square().sum(dim=0) / total if total > 0 else torch.zeros(2)
    return PrincipalPlane(points, (shares[0].item(), shares[1].item()))
