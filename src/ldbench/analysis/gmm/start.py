"""Where expectation-maximisation begins: k-means++ and a few rounds of k-means, for several restarts at once.

[0] Arthur and Vassilvitskii, k-means++: The Advantages of Careful Seeding, 2007, https://dl.acm.org/doi/10.5555/1283383.1283494
"""

import torch
from einops import rearrange
from torch import Tensor

from ldbench.analysis.gmm.mixture import Kind, Mixture
from ldbench.analysis.gmm.points import Points

ROUNDS = 10  # of k-means
LOOKED_AT = 20  # points for each component, of which the start is made
LEAST = 10_000  # points that it is made of where there are as many


def start(
    points: Points,
    kind: Kind,
    *,
    num_components: int,
    num_restarts: int,
    floor: float,  # added to every variance
    rng: torch.Generator,  # of the CPU: the same start on every device
) -> Mixture:
    """Clusters of some of the points: their means and sizes, and for all of them the covariance that is left inside clusters.

    A width that is common at first lets no component begin as a spike on two points. Raises ValueError for fewer points than components.
    """
    if len(points) < num_components:
        raise ValueError(f"A mixture of {num_components} components needs as many points at least, got {len(points)}.")
    many = min(len(points), max(LEAST, LOOKED_AT * num_components))
    x = points.rows(torch.randperm(len(points), generator=rng)[:many].sort().values).float()
    centres = seeds(x, num_components=num_components, num_restarts=num_restarts, rng=rng)
    for _ in range(ROUNDS):
        centres, counts, inside = regroup(x, centres)
    eye = torch.eye(x.shape[1], dtype=torch.float64, device=x.device)
    covariances = {
        "diagonal": (inside.diagonal(dim1=-2, dim2=-1) + floor)[:, None].repeat(1, num_components, 1),
        "full": (inside + floor * eye)[:, None].repeat(1, num_components, 1, 1),
        "tied": inside + floor * eye,
    }[kind]
    weights = (counts + 1) / (counts + 1).sum(dim=1, keepdim=True)  # a cluster that lost its points keeps a little
    return Mixture(kind, weights, centres.double(), covariances)


def seeds(
    x: Tensor,  # (n, D)
    *,
    num_components: int,
    num_restarts: int,
    rng: torch.Generator,
) -> Tensor:  # (R, K, D)
    """Points drawn one after another, each with a chance that grows as the square of its distance to the nearest before it [0]."""
    squares = x.square().sum(dim=1)  # (n,)
    nearest = torch.ones(num_restarts, len(x), dtype=torch.float64, device=x.device)
    chosen = []
    for _ in range(num_components):
        ladder = nearest.cumsum(dim=1)
        drawn = torch.rand(num_restarts, 1, generator=rng, dtype=torch.float64).to(x.device) * ladder[:, -1:]
        place = torch.searchsorted(ladder, drawn, right=True).flatten().clamp(max=len(x) - 1)  # (R,)
        seed = x[place]
        distance = (squares - 2 * seed @ x.T + squares[place, None]).clamp(min=0)
        distance.scatter_(1, place[:, None], 0)
        nearest = distance.double() if not chosen else torch.minimum(nearest, distance.double())
        chosen.append(seed)
    return torch.stack(chosen, dim=1)


def regroup(
    x: Tensor,  # (n, D)
    centres: Tensor,  # (R, K, D)
) -> tuple[Tensor, Tensor, Tensor]:  # (R, K, D); (R, K) and (R, D, D) float64
    """One round of k-means: new centres, the sizes of the clusters, and the covariance inside them."""
    num, components, dim = centres.shape
    offset = torch.arange(num, device=x.device) * components
    counts = torch.zeros(num * components, dtype=torch.float64, device=x.device)
    sums = torch.zeros(num * components, dim, dtype=torch.float64, device=x.device)
    lengths = centres.square().sum(dim=-1) / 2  # (R, K)
    for part in x.split(8192):
        near = rearrange(part @ rearrange(centres, "r k d -> d (r k)"), "n (r k) -> n r k", r=num) - lengths
        member = near.argmax(dim=-1) + offset  # (n, R)
        counts.index_add_(0, member.flatten(), torch.ones(member.numel(), dtype=torch.float64, device=x.device))
        sums.index_add_(0, member.flatten(), part.double().repeat_interleave(num, dim=0))
    means = sums / counts.clamp(min=1)[:, None]
    between = torch.einsum("rk,rkd,rke->rde", *(t.unflatten(0, (num, components)) for t in (counts, means, means)))
    moved = torch.where(counts[:, None] > 0, means, centres.flatten(0, 1).double())
    moved, counts = moved.unflatten(0, (num, components)), counts.unflatten(0, (num, components))
    return moved.to(x.dtype), counts, (x.double().T @ x.double() - between) / len(x)
