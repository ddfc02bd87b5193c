"""The figure of predictions: bars of rank correlations with their intervals."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from ldbench.results.predictions import LEVEL, PredictionRow

MOST_BARS = 30  # measurements, the strongest


def draw(predictions: Mapping[str, Sequence[PredictionRow]], out: Path, *, title: str) -> None:
    """Draws bars of Spearman's rho with 95 % intervals; a panel for each generator.

    Those that were named in advance are on top; opaque bars are beyond chance after Holm's rule.
    """
    most = max(min(len(all_), MOST_BARS) for all_ in predictions.values())
    figure = Figure(figsize=(7.5 * len(predictions), 1.6 + 0.24 * most), layout="constrained")
    axes = figure.subplots(1, len(predictions), squeeze=False)
    for axis, (generator, all_) in zip(axes[0], predictions.items(), strict=True):
        shown = all_[:MOST_BARS]
        values = [one.spearman.value for one in shown]
        ends = [
            [
                0.0 if end is None else abs(end - one.spearman.value)
                for one in shown
                for end in [getattr(one.spearman, side)]
            ]
            for side in ("low", "high")
        ]
        colors = ["#3465a4" if value > 0 else "#c46a1a" for value in values]
        bars = axis.barh(
            range(len(shown)),
            values,
            xerr=ends,
            color=colors,
            height=0.7,
            error_kw={"elinewidth": 1, "ecolor": "#444444"},
        )
        for bar, one in zip(bars, shown, strict=True):
            bar.set_alpha(1.0 if one.p_holm is not None and one.p_holm <= LEVEL else 0.4)
        counts = sorted({one.tokenizers for one in all_})
        over = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        axis.set(xlim=(-1.02, 1.02), ylim=(len(shown) - 0.4, -0.6), xlabel="Spearman's rho, 95 % over families")
        of = f", {len(shown)} of {len(all_)}" if len(all_) > len(shown) else ""
        axis.set_title(f"{generator}, {over} tokenizers{of}", fontsize=10)
        labels = [one.label.replace("↑", "(higher is better)").replace("↓", "(lower is better)") for one in shown]
        axis.set_yticks(range(len(shown)), labels=labels, fontsize=7)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.grid(axis="x", alpha=0.3)
        axis.set_axisbelow(True)
    figure.suptitle(title, fontsize=11)
    figure.supxlabel(
        "blue: better (or larger) values go with better generation; pale: exploratory, or no more than chance",
        fontsize=8,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
