"""Predictions as people read them: tables of what a record of `job=predict` tells."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ldbench.core.estimate import Estimate
from ldbench.results.numbers import number
from ldbench.results.ranking_conditions import conditions_of
from ldbench.results.records import Record, merge_directions
from ldbench.results.table import ARROWS, Place, Table

MEAN_RANK = "mean rank"  # over several generators, in the place of one's name
SHOWN = 20  # measurements of a table, the strongest
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
    higher_is_better: bool | None  # of the measurement

    @property
    def label(self) -> str:
        """Its name with the arrow of the better values."""
        return f"{self.measurement} {ARROWS[self.higher_is_better]}".strip()


def told_in(metrics: Mapping[str, Estimate], higher_is_better: Mapping[str, bool]) -> dict[str, list[Told]]:
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
            better = higher_is_better.get(measurement.partition(" [")[0])
            told[generator].append(Told(measurement, said["spearman"], said["kendall"], *counted, better))
    return {
        generator: sorted(all_, key=lambda one: (-abs(one.spearman.value), one.measurement))
        for generator, all_ in told.items()
    }


def prediction_tables(records: Sequence[Record], higher_is_better: Mapping[str, bool] | None = None) -> list[Table]:
    """The tables of the newest prediction of each target under each protocol.

    `higher_is_better`: of the measurements that they name; None: as the records say that measured them.
    """
    better = merge_directions(records) if higher_is_better is None else higher_is_better
    newest = {
        conditions_of(record).key: record
        for record in sorted(records, key=lambda r: (r.created, r.id))
        if record.job == "predict"
    }
    return [
        table_of(record, generator, told)
        for record in newest.values()
        for generator, told in told_in(record.metrics, better).items()
    ]


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
