"""Tables of the records of `job=predict`: which measurements of tokenizers predict generation quality."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ldbench.core.estimate import Estimate
from ldbench.results.numbers import number
from ldbench.results.ranking_conditions import conditions_of, job_config
from ldbench.results.records import Record, merge_directions
from ldbench.results.table import ARROWS, Entry, Table

MEAN_RANK = "mean rank"  # over several generators, in place of a generator's name
SHOWN = 20  # measurements in a table, the strongest
LEVEL = 0.05
LEGEND = (
    "Above 0: better values go with better generation; without an arrow, larger ones do. "
    "[ ]: 95 %, percentile bootstrap over families of tokenizers. p: permutations within families. "
    "p (Holm): of the measurements that were named before looking, raised by Holm's rule for all of these tests; above "
    "0.05, chance alone does as much. All others are exploratory: of many, some have a small p by chance."
)


@dataclass(frozen=True)
class PredictionRow:
    """How well one measurement predicts the quality of one generator."""

    measurement: str
    spearman: Estimate
    kendall: Estimate
    p: float
    smallest_p: float  # that these families allow; above the level there is no test
    p_holm: float | None  # None: exploratory
    tokenizers: int
    families: int
    higher_is_better: bool | None  # of the measurement

    @property
    def testable(self) -> bool:
        """Whether any order of the tokenizers within families would be beyond chance."""
        return self.smallest_p <= LEVEL

    @property
    def label(self) -> str:
        """Its name with the arrow of the better values."""
        return f"{self.measurement} {ARROWS[self.higher_is_better]}".strip()


def predictions_by_generator(
    metrics: Mapping[str, Estimate], higher_is_better: Mapping[str, bool]
) -> dict[str, list[PredictionRow]]:
    """Generator -> measurements, those that were named in advance first, then the strongest.

    From metrics named predict/<statistic>/<generator>/<measurement>.
    """
    statistics: dict[tuple[str, str], dict[str, Estimate]] = defaultdict(dict)
    for name, estimate in metrics.items():
        prefix, _, rest = name.partition("/")
        statistic, generator, measurement = (*rest.split("/", 2), "", "")[:3]
        if prefix == "predict" and measurement:
            statistics[generator, measurement][statistic] = estimate
    rows: dict[str, list[PredictionRow]] = defaultdict(list)
    for (generator, measurement), values in statistics.items():
        if {"spearman", "kendall", "p", "tokenizers", "families"} <= values.keys():
            row = PredictionRow(
                measurement,
                values["spearman"],
                values["kendall"],
                values["p"].value,
                values["smallest_p"].value if "smallest_p" in values else 0.0,  # older records do not have it
                values["p_holm"].value if "p_holm" in values else None,
                int(values["tokenizers"].value),
                int(values["families"].value),
                higher_is_better.get(measurement.partition(" [")[0]),
            )
            rows[generator].append(row)
    return {
        generator: sorted(unsorted, key=lambda row: (row.p_holm is None, -abs(row.spearman.value), row.measurement))
        for generator, unsorted in rows.items()
    }


def prediction_tables(records: Sequence[Record], higher_is_better: Mapping[str, bool] | None = None) -> list[Table]:
    """The tables of the newest prediction of each target under each protocol.

    `higher_is_better`: of the measurements that they name; None: from the records of these measurements.
    """
    better = merge_directions(records) if higher_is_better is None else higher_is_better
    newest = {
        conditions_of(record).key: record
        for record in sorted(records, key=lambda r: (r.created, r.id))
        if record.job == "predict"
    }
    return [
        table_of(record, generator, rows)
        for record in newest.values()
        for generator, rows in predictions_by_generator(record.metrics, better).items()
    ]


def table_of(record: Record, generator: str, predictions: Sequence[PredictionRow]) -> Table:
    """The strongest predictors of one generator's quality."""
    conditions = conditions_of(record)
    rows = [
        (
            [row.label],
            [
                Entry(number(row.spearman.value), bracket(row.spearman)),
                Entry(number(row.kendall.value), bracket(row.kendall)),
                Entry("exploratory" if row.p_holm is None else number(row.p_holm)) if row.testable else None,
                Entry(number(row.p)) if row.testable else None,
                Entry(str(row.tokenizers)),
                Entry(str(row.families)),
            ],
        )
        for row in predictions[:SHOWN]
    ]
    target = job_config(record).get("target")
    count, tested = len(predictions), [row.p_holm for row in predictions if row.p_holm is not None]
    significant = sum(p <= LEVEL for p in tested)
    notes = [
        f"{len(tested)} measurements were named before looking, of which {significant} "
        f"{'is' if significant == 1 else 'are'} beyond chance at {LEVEL}; {count - len(tested)} others are "
        f"exploratory. {len(record.artifacts)} artifacts." + (f" {SHOWN} are shown." if count > SHOWN else ""),
        *(
            ["Too few families for an interval: eight are needed."]
            if any(row.spearman.low is None for row in predictions)
            else []
        ),
        *(
            [
                "Without p: too few tokenizers share a family, so that no order of them within families could have a p "
                f"of {LEVEL}. Their coefficients describe these tokenizers, and are no test."
            ]
            if not all(row.testable for row in predictions)
            else []
        ),
        LEGEND,
    ]
    title = f"{conditions.data}: what predicts {target} of {generator}, protocol {conditions.short_name}"
    return Table(
        title, ["measurement"], ["Spearman", "Kendall", "p (Holm)", "p", "tokenizers", "families"], rows, notes
    )


def bracket(estimate: Estimate) -> str:
    """An interval."""
    return "" if estimate.low is None or estimate.high is None else f"[{number(estimate.low)}, {number(estimate.high)}]"
