"""Panels: curves side by side in one image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from ldbench.core.estimate import Estimate


@dataclass(frozen=True)
class Curve:
    """Estimates along an axis."""

    x: Sequence[float]
    y: Sequence[Estimate]


def draw_curves(panels: Mapping[str, Curve], out: Path, *, xlabel: str, logarithmic: bool = False) -> None:
    """Draws one panel for each curve, its interval as a band, and writes a PNG. Infinite values are left out."""
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.6 * columns, 2.8 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis, (name, curve) in zip(axes.flat, panels.items(), strict=False):
        axis.plot(curve.x, [e.value for e in curve.y], marker="o", markersize=3, linewidth=1, color="#3465a4")
        band = [(x, e.low, e.high) for x, e in zip(curve.x, curve.y, strict=True) if e.low is not None]
        if band:
            axis.fill_between(*map(list, zip(*band, strict=True)), color="#3465a4", alpha=0.2, linewidth=0)
        axis.set_title(name)
        axis.grid(alpha=0.3)
        if logarithmic:
            axis.set(xscale="log", yscale="log")
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    figure.supxlabel(xlabel)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
