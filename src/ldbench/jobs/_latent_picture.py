"""A picture of latents in two planes, that of their principal components and that of t-SNE, colored by class."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ldbench.analysis.principal_plane import principal_plane
from ldbench.analysis.uniformity import embed
from ldbench.results.planes_figure import draw_planes

PICTURE = "latents.png"


def draw_latents(
    z: Tensor,  # (n, N, C)
    y: Tensor,  # (n,)
    class_names: Sequence[str],
    out: Path,
    *,
    num_points: int,  # at most
    perplexity: float,  # of t-SNE; less for few points
    seed: int,  # of the points and of t-SNE
) -> None:
    """Writes `out/latents.png`: whole latents as points, drawn by the seed."""
    drawn = torch.randperm(len(z), generator=torch.Generator().manual_seed(seed))[:num_points].sort().values
    features = z[drawn].flatten(1)
    plane = principal_plane(features)
    perplexity = min(perplexity, (len(features) - 1) / 3)
    layout = embed(features, perplexity=perplexity, seed=seed)
    shares = " and ".join(f"{100 * share:.0f} %" for share in plane.explained)
    planes = {
        f"principal components ({shares} of the variance)": plane.points.tolist(),
        f"t-SNE (perplexity {perplexity:.0f}, seed {seed})": layout.tolist(),
    }
    title = f"{len(features)} held-out latents"
    draw_planes(planes, y[drawn].tolist(), class_names, out / PICTURE, title=title)
