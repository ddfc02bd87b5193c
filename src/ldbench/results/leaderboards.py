"""Leaderboards: one for each dataset, job and protocol; a row for each model, a column for each metric."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ldbench.core.estimate import Estimate
from ldbench.results.curves import is_point
from ldbench.results.extractor_differences import describe_extractor_differences
from ldbench.results.metric_names import ROWS, is_cost, is_reference, reference_row
from ldbench.results.models import Model, models_of
from ldbench.results.per_image import PerImage, no_values, paired_error
from ldbench.results.ranking import Rank, rank
from ldbench.results.ranking_conditions import Conditions, conditions_of
from ldbench.results.records import Record, measured_name, merge_directions
from ldbench.results.replicates import estimates_of, nested, replicates
from ldbench.results.summaries import Error, Summary, summarize

Nests = Sequence[Sequence[Sequence[Record]]]  # of each model, of each tokenizer seed, of each further seed
JOB_ORDER = {
    "generate": 0,
    "guidance": 0,
    "reconstruct": 1,
    "encode": 3,
}  # of leaderboards; other jobs come between, by name


@dataclass(frozen=True)
class Cell:
    """One number of a model over its seeds, and its rank, if the metric is ranked."""

    summary: Summary
    estimates: Mapping[str, Estimate]  # record id -> its number
    rank: Rank | None


@dataclass(frozen=True)
class Row:
    """A model and its numbers."""

    model: Model
    records: Sequence[Record]  # one for each seed
    cells: Mapping[str, Cell]  # metric -> number
    superseded: int  # older measurements of the same seeds, which are left out


@dataclass(frozen=True)
class ReferenceRow:
    """Values to read those of models by, such as those of held-out images."""

    label: str
    estimates: Mapping[str, Estimate]  # metric -> value


@dataclass(frozen=True)
class Leaderboard:
    """Models that were measured under the same conditions, so that they can be ranked."""

    conditions: Conditions
    rows: Sequence[Row]
    metrics: Sequence[str]  # in the order of columns: ranked ones, others, costs, reference values
    higher_is_better: Mapping[str, bool]  # of each ranked metric
    references: Sequence[ReferenceRow] = ()

    @property
    def extractor_differences(self) -> str | None:
        """A sentence where its records were measured on the features of several networks."""
        return describe_extractor_differences([record for row in self.rows for record in row.records])

    @property
    def columns(self) -> list[str]:
        """The metrics that are not points of curves."""
        return [metric for metric in self.metrics if not is_point(metric)]

    @property
    def first_ranked(self) -> str | None:
        """The first metric that is ranked."""
        return next((metric for metric in self.columns if metric in self.higher_is_better), None)

    @property
    def subject(self) -> str:
        """What its rows are called: tokenizers, with generators or without, or somebody's samples."""
        return "samples" if any(row.model.samples for row in self.rows) else "tokenizer"

    @property
    def generates(self) -> bool:
        """Whether its rows are pairs of a tokenizer and a generator."""
        return any(row.model.generator is not None for row in self.rows)


def build_leaderboards(records: Sequence[Record], values: PerImage = no_values) -> list[Leaderboard]:
    """The leaderboards of records: generation first, then reconstruction, statistics of latents last.

    `values`: those of single images, by which models are compared in pairs. If a measurement was repeated, the latest
    counts. Records of neither a tokenizer nor somebody's samples are on no leaderboard.
    """
    records = [record for record in records if measured_name(record) is not None]
    models = models_of(records)
    groups: dict[tuple[str, ...], dict[tuple[str, str, str, str], list[Record]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for record in records:
        model = models[record.id]
        row_key = (model.tokenizer, model.generator or "", model.variant, model.key)
        groups[conditions_of(record).key][row_key].append(record)
    boards = [
        leaderboard_of([(models[measured[0].id], measured) for _, measured in sorted(rows.items())], values)
        for rows in groups.values()
    ]
    return sorted(
        boards, key=lambda board: (board.conditions.data, JOB_ORDER.get(board.conditions.job, 2), board.conditions.key)
    )


def leaderboard_of(models: Sequence[tuple[Model, Sequence[Record]]], values: PerImage) -> Leaderboard:
    """The leaderboard of models that were measured under the same conditions."""
    latest = [replicates(records) for _, records in models]
    used = [record for records in latest for record in records]
    better = {metric: value for metric, value in merge_directions(used).items() if not is_point(metric)}
    found = dict.fromkeys(name for record in used for name in record.metrics)
    metrics = sorted((name for name in found if reference_row(name) is None), key=lambda metric: order(metric, better))
    cells: list[dict[str, Cell]] = [{} for _ in models]
    for metric in metrics:
        by_row = {row: nests for row, records in enumerate(latest) if (nests := nested(records, metric))}
        summaries = [summarize(estimates_of(nests, metric)) for nests in by_row.values()]
        measured = [[[r for samplings in inner for r in samplings] for inner in nests] for nests in by_row.values()]
        ranks: Sequence[Rank | None] = [None] * len(summaries)
        if metric in better:

            def paired(first: int, second: int, metric: str = metric, measured: Nests = measured) -> Error | None:
                return paired_error(measured[first], measured[second], metric, values)

            ranks = rank(summaries, higher_is_better=better[metric], paired=paired)
        for row, summary, rank_ in zip(by_row, summaries, ranks, strict=True):
            estimates = {record.id: record.metrics[metric] for record in latest[row] if metric in record.metrics}
            cells[row][metric] = Cell(summary, estimates, rank_)
    rows = [
        Row(model, records, row_cells, len(all_) - len(records))
        for (model, all_), records, row_cells in zip(models, latest, cells, strict=True)
    ]
    return Leaderboard(conditions_of(latest[0][0]), rows, metrics, better, reference_rows(used))


def reference_rows(records: Sequence[Record]) -> list[ReferenceRow]:
    """The values that records hold beside those of models; of several, the newest, since models do not matter."""
    rows: dict[str, dict[str, Estimate]] = defaultdict(dict)
    for record in sorted(records, key=lambda record: (record.created, record.id)):
        for name, estimate in record.metrics.items():
            if (found := reference_row(name)) is not None:
                metric, label = found
                rows[label][metric] = estimate
    return [ReferenceRow(label, rows[label]) for label in ROWS.values() if label in rows]


def order(metric: str, ranked: Collection[str]) -> tuple[int, bool]:
    """The sort key of a metric's column, stable within its kind."""
    kind = 0 if metric in ranked else 3 if is_reference(metric) else 2 if is_cost(metric) else 1
    return kind, is_point(metric)
