"""The figure of a guidance search: the score over the scale, for each interval, number of steps and weight average."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from ldbench.core.estimate import Estimate
from ldbench.io.files import atomic_write

Curve = Sequence[tuple[float, Estimate]]  # scale, score


def draw(rungs: Sequence[tuple[int, Mapping[str, Curve]]], out: Path, *, target: str, data: str) -> None:
    """Draws the curves of each rung with 95 % intervals, a panel for each, and writes a PNG atomically."""
    names = sorted({name for _, curves in rungs for name in curves})
    colors = {name: f"C{index}" for index, name in enumerate(names)}
    figure = Figure(figsize=(1.5 + 4.2 * len(rungs), 4.2), layout="constrained")
    axes = figure.subplots(1, len(rungs), squeeze=False, sharex=True)
    for axis, (num_samples, curves) in zip(axes[0], rungs, strict=True):
        for name, points in sorted(curves.items()):
            scales, scores = [scale for scale, _ in points], [score for _, score in points]
            ends = [
                [0.0 if end is None else abs(end - score.value) for score in scores for end in [getattr(score, side)]]
                for side in ("low", "high")
            ]
            axis.errorbar(
                scales,
                [score.value for score in scores],
                yerr=ends,
                color=colors[name],
                label=name.replace("/", ", "),
                marker="o",
                markersize=4,
                linewidth=1.2,
                elinewidth=0.8,
                capsize=2,
            )
        axis.set(title=f"{num_samples} samples", xlabel="guidance scale")
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel(target)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    figure.suptitle(f"{data}: {target} by guidance; bars: 95 % over samples", fontsize=11)
    with atomic_write(out) as scratch:
        figure.savefig(scratch, dpi=110, format="png", metadata={"Software": None})
