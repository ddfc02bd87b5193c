"""Initialization of expectation-maximization: k-means++ and a few rounds of k-means, for several restarts at once.

[0] Arthur and Vassilvitskii, k-means++: The Advantages of Careful Seeding, 2007,
    https://dl.acm.org/doi/10.5555/1283383.1283494
"""

import torch
from einops import rearrange
from torch import Tensor

from ldbench.analysis.gmm.mixture import Kind, Mixture
from ldbench.analysis.gmm.points import Points

ROUNDS = 10  # of k-means
POINTS_PER_COMPONENT = 20  # that are used for the initialization
MIN_POINTS = 10_000  # that are used where there are as many


def initialize(
    points: Points,
    kind: Kind,
    *,
    num_components: int,
    num_restarts: int,
    floor: float,  # added to every variance
    rng: torch.Generator,  # on the CPU: the same initialization on every device
) -> Mixture:
    """Mixtures from clusters of some of the points: their means and sizes, and the pooled covariance within clusters
    for all components.

    With a pooled covariance no component starts as a spike on two points. Raises ValueError for fewer points than
    components.
    """
    if len(points) < num_components:
        raise ValueError(f"A mixture of {num_components} components needs at least as many points, got {len(points)}.")
    count = min(len(points), max(MIN_POINTS, POINTS_PER_COMPONENT * num_components))
    x = points.rows(torch.randperm(len(points), generator=rng)[:count].sort().values).float()
    centers = kmeans_plus_plus(x, num_components=num_components, num_restarts=num_restarts, rng=rng)
    for _ in range(ROUNDS):
        centers, counts, within = kmeans_step(x, centers)
    eye = torch.eye(x.shape[1], dtype=torch.float64, device=x.device)
    covariances = {
        "diagonal": (within.diagonal(dim1=-2, dim2=-1) + floor)[:, None].repeat(1, num_components, 1),
        "full": (within + floor * eye)[:, None].repeat(1, num_components, 1, 1),
        "tied": within + floor * eye,
    }[kind]
    weights = (counts + 1) / (counts + 1).sum(dim=1, keepdim=True)  # an empty cluster keeps a small weight
    return Mixture(kind, weights, centers.double(), covariances)


def kmeans_plus_plus(
    x: Tensor,  # (n, D)
    *,
    num_components: int,
    num_restarts: int,
    rng: torch.Generator,
) -> Tensor:  # (R, K, D)
    """Points drawn one by one, with probability proportional to the squared distance to the nearest point drawn
    before [0].
    """
    squares = x.square().sum(dim=1)  # (n,)
    nearest = torch.ones(num_restarts, len(x), dtype=torch.float64, device=x.device)
    chosen: list[Tensor] = []
    for _ in range(num_components):
        cumulative = nearest.cumsum(dim=1)
        drawn = torch.rand(num_restarts, 1, generator=rng, dtype=torch.float64).to(x.device) * cumulative[:, -1:]
        index = torch.searchsorted(cumulative, drawn, right=True).flatten().clamp(max=len(x) - 1)  # (R,)
        seed = x[index]
        distance = (squares - 2 * seed @ x.T + squares[index, None]).clamp(min=0)
        distance.scatter_(1, index[:, None], 0)
        nearest = distance.double() if not chosen else torch.minimum(nearest, distance.double())
        chosen.append(seed)
    return torch.stack(chosen, dim=1)


def kmeans_step(
    x: Tensor,  # (n, D)
    centers: Tensor,  # (R, K, D)
) -> tuple[Tensor, Tensor, Tensor]:  # (R, K, D); (R, K) and (R, D, D) float64
    """One round of k-means: new centers, cluster sizes, and the pooled covariance within clusters."""
    num, components, dim = centers.shape
    offset = torch.arange(num, device=x.device) * components
    counts = torch.zeros(num * components, dtype=torch.float64, device=x.device)
    sums = torch.zeros(num * components, dim, dtype=torch.float64, device=x.device)
    lengths = centers.square().sum(dim=-1) / 2  # (R, K)
    for part in x.split(8192):
        near = rearrange(part @ rearrange(centers, "r k d -> d (r k)"), "n (r k) -> n r k", r=num) - lengths
        member = near.argmax(dim=-1) + offset  # (n, R)
        counts.index_add_(0, member.flatten(), torch.ones(member.numel(), dtype=torch.float64, device=x.device))
        sums.index_add_(0, member.flatten(), part.double().repeat_interleave(num, dim=0))
    means = sums / counts.clamp(min=1)[:, None]
    between = torch.einsum("rk,rkd,rke->rde", *(t.unflatten(0, (num, components)) for t in (counts, means, means)))
    moved = torch.where(counts[:, None] > 0, means, centers.flatten(0, 1).double())
    moved, counts = moved.unflatten(0, (num, components)), counts.unflatten(0, (num, components))
    return moved.to(x.dtype), counts, (x.double().T @ x.double() - between) / len(x)
