"""Leaderboards: one for each dataset, job and protocol; a row for each model, a column for each metric."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ldbench.core.estimate import Estimate
from ldbench.results.curves import is_point
from ldbench.results.metric_names import is_cost, is_reference
from ldbench.results.models import Model, models_of, seeds_of
from ldbench.results.ranking import Rank, Summary, rank, summarize
from ldbench.results.ranking_conditions import Conditions, conditions_of
from ldbench.results.records import Record, merge_directions

JOB_ORDER = {"generate": 0, "reconstruct": 1, "encode": 3}  # of leaderboards; other jobs come between, by name


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
    superseded: int  # older measurements of the same artifacts, which are left out


@dataclass(frozen=True)
class Leaderboard:
    """Models that were measured under the same conditions, so that they can be ranked."""

    conditions: Conditions
    rows: Sequence[Row]
    metrics: Sequence[str]  # in the order of columns: ranked ones, others, costs, reference values
    higher_is_better: Mapping[str, bool]  # of each ranked metric

    @property
    def columns(self) -> list[str]:
        """The metrics that are not points of curves."""
        return [metric for metric in self.metrics if not is_point(metric)]

    @property
    def generates(self) -> bool:
        """Whether its rows are pairs of a tokenizer and a generator."""
        return any(row.model.generator is not None for row in self.rows)


def build_leaderboards(records: Sequence[Record]) -> list[Leaderboard]:
    """The leaderboards of records: generation first, then reconstruction, statistics of latents last.

    If a measurement was repeated, the latest counts. Records without a tokenizer are on no leaderboard.
    """
    records = [record for record in records if record.subject["tokenizer"] is not None]
    models = models_of(records)
    groups: dict[tuple[str, ...], dict[tuple[str, str, str, str], list[Record]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for record in records:
        model = models[record.id]
        row_key = (model.tokenizer, model.generator or "", model.variant, model.key)
        groups[conditions_of(record).key][row_key].append(record)
    boards = [
        leaderboard_of([(models[measured[0].id], measured) for _, measured in sorted(rows.items())])
        for rows in groups.values()
    ]
    return sorted(
        boards, key=lambda board: (board.conditions.data, JOB_ORDER.get(board.conditions.job, 2), board.conditions.key)
    )


def leaderboard_of(models: Sequence[tuple[Model, Sequence[Record]]]) -> Leaderboard:
    """The leaderboard of models that were measured under the same conditions."""
    latest = [newest(records) for _, records in models]
    used = [record for records in latest for record in records]
    better = {metric: value for metric, value in merge_directions(used).items() if not is_point(metric)}
    metrics = sorted(
        dict.fromkeys(name for record in used for name in record.metrics), key=lambda metric: order(metric, better)
    )
    cells: list[dict[str, Cell]] = [{} for _ in models]
    for metric in metrics:
        by_row = {
            row: {record.id: record.metrics[metric] for record in records if metric in record.metrics}
            for row, records in enumerate(latest)
        }
        by_row = {row: estimates for row, estimates in by_row.items() if estimates}
        summaries = [summarize(list(estimates.values())) for estimates in by_row.values()]
        ranks: Sequence[Rank | None] = [None] * len(summaries)
        if metric in better:
            ranks = rank(summaries, higher_is_better=better[metric])
        for (row, estimates), summary, rank_ in zip(by_row.items(), summaries, ranks, strict=True):
            cells[row][metric] = Cell(summary, estimates, rank_)
    rows = [
        Row(model, records, row_cells, len(all_) - len(records))
        for (model, all_), records, row_cells in zip(models, latest, cells, strict=True)
    ]
    return Leaderboard(conditions_of(latest[0][0]), rows, metrics, better)


def newest(records: Sequence[Record]) -> list[Record]:
    """One record for each seed, in the order of seeds: the latest, if one was measured more than once."""
    latest = {
        str(seeds_of(record)): record for record in sorted(records, key=lambda record: (record.created, record.id))
    }
    return [record for _, record in sorted(latest.items())]


def order(metric: str, ranked: Collection[str]) -> tuple[int, bool]:
    """The sort key of a metric's column, stable within its kind."""
    kind = 0 if metric in ranked else 3 if is_reference(metric) else 2 if is_cost(metric) else 1
    return kind, is_point(metric)
