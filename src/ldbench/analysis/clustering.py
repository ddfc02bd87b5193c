"""Perceptual compression as clustering: whether features have cluster structure at many scales or at one.

[0] Lee et al., Latent Diffusion Models with Masked AutoEncoders (LDMAE), 2025, https://arxiv.org/abs/2507.09984
[1] Ward, Hierarchical Grouping to Optimize an Objective Function, 1963, https://doi.org/10.1080/01621459.1963.10500845
"""

import math
from dataclasses import dataclass

import torch
from sklearn.cluster import ward_tree
from torch import Tensor


@dataclass(frozen=True)
class Hierarchy:
    """The share of the features' variance between clusters, for 2, 4, 8, ... clusters, and how evenly it grows."""

    explained: dict[int, float]  # number of clusters -> share of variance between them
    score: float  # evenness over the doublings: 0, one doubling explains everything; 1, all explain the same


def hierarchy(
    features: Tensor,  # (n, D), one item for each patch of an image
    *,
    doublings: int,  # levels: up to 2^doublings clusters
) -> Hierarchy:
    """Ward's clustering [1], cut at 2, 4, 8, ... clusters.

    [0] argues with figures of clusters that features of a good tokenizer split from objects into parts into patterns,
    where those of others end with objects. The score is ours: with g_l the share of variance that doubling l adds, the
    entropy of g / sum g over log `doublings`. Features are standardized; constant ones are left out. Deterministic.
    Raises ValueError for fewer items than clusters, fewer than two doublings, and constant features.
    """
    if doublings < 2 or len(features) < 2**doublings:
        raise ValueError(
            f"{2**doublings} clusters (2^doublings, doublings at least 2) need at least as many items, got "
            f"{len(features)}."
        )
    x = features.double()
    std = x.std(dim=0, correction=0)
    x = ((x - x.mean(dim=0)) / std)[:, std > 1e-9 * x.square().mean().sqrt()]
    if x.shape[1] == 0:
        raise ValueError("Constant features have no clusters.")
    *_, distances = ward_tree(x.numpy(), return_distance=True)
    # the variance between clusters, times n, that each merge removes; the last merge leaves one cluster
    losses = torch.from_numpy(distances.copy()).square() / 2
    between = losses.flip(0).cumsum(0) / losses.sum()  # [k - 2]: for k clusters
    explained = {2**level: between[2**level - 2].item() for level in range(1, doublings + 1)}
    gains = torch.tensor(list(explained.values()), dtype=torch.float64).diff(
        prepend=torch.zeros(1, dtype=torch.float64)
    )
    entropy = torch.special.entr(gains / gains.sum()).sum().item()
    return Hierarchy(explained=explained, score=entropy / math.log(doublings))
