"""The figure of curves over the number of components."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from ldbench.core.estimate import Estimate

BLUE, GRAY, ORANGE = "#3465a4", "#777777", "#c46a1a"


@dataclass(frozen=True)
class Curve:
    """A curve over the numbers of components, in nats per dimension."""

    label: str
    sizes: Sequence[int]
    heldout: Sequence[Estimate]
    train: Sequence[float]
    score: Sequence[Estimate]
    single: float | None  # the held-out NLL of one Gaussian


def draw(curves: Sequence[Curve], bic: Mapping[int, float], *, title: str, note: str, out: Path) -> None:
    """Draws held-out and training NLL, the score, and BIC per training point, side by side, with `note` below."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for curve, color in zip(curves, (BLUE, ORANGE), strict=False):
        band(left, curve.sizes, curve.heldout, color, f"held out, {curve.label}")
        left.plot(
            curve.sizes,
            curve.train,
            color=color,
            linestyle=":",
            marker=".",
            linewidth=1,
            label=f"training, {curve.label}",
        )
        if curve.single is not None:
            left.axhline(
                curve.single, color=color, linestyle="--", linewidth=1, label=f"one Gaussian, held out, {curve.label}"
            )
        band(middle, curve.sizes, curve.score, color, curve.label)
    middle.axhline(0, color=GRAY, linestyle="--", linewidth=1, label="no better than one Gaussian")
    right.plot(list(bic), list(bic.values()), color=BLUE, marker="o", markersize=3)
    for axis, name in (
        (left, "NLL per dimension (nats)"),
        (middle, "score (nats per dimension)"),
        (right, "BIC per training point (nats)"),
    ):
        axis.set(xscale="log", xlabel="components", ylabel=name)
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.xaxis.set_minor_formatter(NullFormatter())
        sizes = sorted({size for curve in curves for size in curve.sizes})
        axis.set_xticks(sizes, labels=map(str, sizes))
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    for axis in (left, middle):
        axis.legend(fontsize=8, frameon=False)
    figure.suptitle(title)
    if note:
        figure.supxlabel(note, fontsize=8, color=GRAY)
    figure.savefig(out, dpi=110)


def band(axis: Axes, sizes: Sequence[int], values: Sequence[Estimate], color: str, label: str) -> None:
    """Draws a line with its 95 % intervals."""
    axis.plot(sizes, [v.value for v in values], color=color, marker="o", markersize=3, linewidth=1.4, label=label)
    low, high = (
        [v.value if end is None else end for v, end in ((v, getattr(v, name)) for v in values)]
        for name in ("low", "high")
    )
    axis.fill_between(sizes, low, high, color=color, alpha=0.15, linewidth=0)
