"""Predictions as people read them: tables and a picture of what a record of `job=predict` tells."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from ldbench.core.estimate import Estimate
from ldbench.results.conditions import conditions_of
from ldbench.results.directions import direction_of
from ldbench.results.numbers import number
from ldbench.results.records import Record
from ldbench.results.table import ARROWS, Place, Table

MEAN_RANK = "mean rank"  # over several generators, in the place of one's name
SHOWN = 20  # measurements of a table, the strongest
DRAWN = 30  # of a picture
LEVEL = 0.05
LEGEND = (
    "Above 0: better values go with better generation; without an arrow, larger ones do. [ ]: 95 %, percentile bootstrap over tokenizers. "
    "p: permutations, raised by Holm's rule for all measurements that were tried; above 0.05, chance alone does as much."
)


@dataclass(frozen=True)
class Told:
    """What a record tells of one measurement and one generator."""

    measurement: str
    spearman: Estimate
    kendall: Estimate
    p_holm: float
    tokenizers: int

    @property
    def label(self) -> str:
        """Its name with the arrow of the better values."""
        return f"{self.measurement} {ARROWS[direction_of(self.measurement.partition(' [')[0])]}".strip()


def told_in(metrics: Mapping[str, Estimate]) -> dict[str, list[Told]]:
    """Generator -> its measurements, strongest first, from metrics named predict/<statistic>/<generator>/<measurement>."""
    found: dict[tuple[str, str], dict[str, Estimate]] = defaultdict(dict)
    for name, estimate in metrics.items():
        room, _, rest = name.partition("/")
        statistic, generator, measurement = (*rest.split("/", 2), "", "")[:3]
        if room == "predict" and measurement:
            found[generator, measurement][statistic] = estimate
    told: dict[str, list[Told]] = defaultdict(list)
    for (generator, measurement), said in found.items():
        if {"spearman", "kendall", "p_holm", "tokenizers"} <= said.keys():
            counted = (said["p_holm"].value, int(said["tokenizers"].value))
            told[generator].append(Told(measurement, said["spearman"], said["kendall"], *counted))
    return {generator: sorted(all_, key=lambda one: (-abs(one.spearman.value), one.measurement)) for generator, all_ in told.items()}


def prediction_tables(records: Sequence[Record]) -> list[Table]:
    """The tables of the newest prediction of each target under each protocol."""
    newest = {conditions_of(record).key: record for record in sorted(records, key=lambda r: (r.created, r.id)) if record.job == "predict"}
    return [table_of(record, generator, told) for record in newest.values() for generator, told in told_in(record.metrics).items()]


def table_of(record: Record, generator: str, told: Sequence[Told]) -> Table:
    """The strongest predictors of one generator's quality."""
    conditions = conditions_of(record)
    rows = [
        (
            [one.label],
            [
                Place(number(one.spearman.value), bracket(one.spearman)),
                Place(number(one.kendall.value), bracket(one.kendall)),
                Place(number(one.p_holm)),
                Place(str(one.tokenizers)),
            ],
        )
        for one in told[:SHOWN]
    ]
    target = record.config.get("job", {}).get("target")
    sure = sum(one.p_holm <= LEVEL for one in told)
    notes = [
        f"{len(told)} measurements were tried, of which {sure} {'is' if sure == 1 else 'are'} beyond chance at {LEVEL}; "
        f"{len(record.artifacts)} artifacts." + (f" The {SHOWN} strongest are shown." if len(told) > SHOWN else ""),
        LEGEND,
    ]
    title = f"{conditions.data}: what predicts {target} of {generator}, protocol {conditions.short_name}"
    return Table(title, ["measurement"], ["Spearman", "Kendall", "p", "tokenizers"], rows, notes)


def bracket(estimate: Estimate) -> str:
    """An interval."""
    return "" if estimate.low is None or estimate.high is None else f"[{number(estimate.low)}, {number(estimate.high)}]"


def draw(told: Mapping[str, Sequence[Told]], out: Path, *, title: str) -> None:
    """Bars of Spearman's rho with 95 % intervals, the strongest above; a panel for each generator. Full colour: beyond chance after Holm's rule."""
    most = max(min(len(all_), DRAWN) for all_ in told.values())
    figure, axes = plt.subplots(1, len(told), figsize=(7.5 * len(told), 1.6 + 0.24 * most), squeeze=False, layout="constrained")
    for axis, (generator, all_) in zip(axes[0], told.items(), strict=True):
        shown = all_[:DRAWN]
        values = [one.spearman.value for one in shown]
        ends = [[abs(end - one.spearman.value) for one in shown for end in [getattr(one.spearman, side)]] for side in ("low", "high")]
        colours = ["#3465a4" if value > 0 else "#c46a1a" for value in values]
        bars = axis.barh(range(len(shown)), values, xerr=ends, color=colours, height=0.7, error_kw={"elinewidth": 1, "ecolor": "#444444"})
        for bar, one in zip(bars, shown, strict=True):
            bar.set_alpha(1.0 if one.p_holm <= LEVEL else 0.4)
        counts = sorted({one.tokenizers for one in all_})
        over = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        axis.set(xlim=(-1.02, 1.02), ylim=(len(shown) - 0.4, -0.6), xlabel="Spearman's rho, 95 % over tokenizers")
        of = f", {len(shown)} strongest of {len(all_)}" if len(all_) > len(shown) else ""
        axis.set_title(f"{generator}, {over} tokenizers{of}", fontsize=10)
        labels = [one.label.replace("↑", "(higher is better)").replace("↓", "(lower is better)") for one in shown]
        axis.set_yticks(range(len(shown)), labels=labels, fontsize=7)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.grid(axis="x", alpha=0.3)
        axis.set_axisbelow(True)
    figure.suptitle(title, fontsize=11)
    figure.supxlabel("blue: better (or larger) values go with better generation; pale: no more than chance after Holm's rule", fontsize=8)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    plt.close(figure)
