"""Boards: one for each data set, job and protocol; a row for each model, a column for each metric."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ldbench.core.estimate import Estimate
from ldbench.results.curves import is_point
from ldbench.results.metric_names import is_cost, is_reference
from ldbench.results.models import Subject, seeds_of, subjects_of
from ldbench.results.ranking import Rank, Summary, rank, summarise
from ldbench.results.ranking_conditions import Conditions, conditions_of
from ldbench.results.records import Record, merge_directions

PLACES = {"generate": 0, "reconstruct": 1, "encode": 3}  # of jobs among boards; the rest stand between, by name


@dataclass(frozen=True)
class Cell:
    """One number of a model, over its seeds, and its place among the others; no rank where nothing is ranked."""

    summary: Summary
    estimates: Mapping[str, Estimate]  # record id -> what it says
    rank: Rank | None


@dataclass(frozen=True)
class Row:
    """A model and its numbers."""

    subject: Subject
    records: Sequence[Record]  # one for each seed
    cells: Mapping[str, Cell]  # metric -> number
    superseded: int  # older measurements of the same artifacts, left out


@dataclass(frozen=True)
class Board:
    """What was measured alike, and can be ranked."""

    conditions: Conditions
    rows: Sequence[Row]
    metrics: Sequence[str]  # in the order of columns: ranked ones, others, costs, marks to read by
    higher_is_better: Mapping[str, bool]  # of each ranked metric

    @property
    def columns(self) -> list[str]:
        """The metrics that are no points of curves."""
        return [metric for metric in self.metrics if not is_point(metric)]

    @property
    def generates(self) -> bool:
        """Whether its rows are cells of tokenizer and generator."""
        return any(row.subject.generator is not None for row in self.rows)


def make_boards(records: Sequence[Record]) -> list[Board]:
    """The boards of records: samples first, then reconstruction, statistics of latents last.

    Of one measurement done twice the later one counts. Records of images alone are of no model, and stand on none.
    """
    records = [record for record in records if record.subject["tokenizer"] is not None]
    subjects = subjects_of(records)
    groups: dict[tuple[str, ...], dict[tuple[str, str, str, str], list[Record]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for record in records:
        subject = subjects[record.id]
        groups[conditions_of(record).key][
            (subject.tokenizer, subject.generator or "", subject.variant, subject.key)
        ].append(record)
    boards = [
        board_of([(subjects[found[0].id], found) for _, found in sorted(models.items())]) for models in groups.values()
    ]
    return sorted(
        boards, key=lambda board: (board.conditions.data, PLACES.get(board.conditions.job, 2), board.conditions.key)
    )


def board_of(models: Sequence[tuple[Subject, Sequence[Record]]]) -> Board:
    """The board of models that were measured alike."""
    latest = [newest(records) for _, records in models]
    used = [record for records in latest for record in records]
    better = {metric: value for metric, value in merge_directions(used).items() if not is_point(metric)}
    metrics = sorted(
        dict.fromkeys(name for record in used for name in record.metrics), key=lambda metric: order(metric, better)
    )
    cells: list[dict[str, Cell]] = [{} for _ in models]
    for metric in metrics:
        told = {
            place: {record.id: record.metrics[metric] for record in records if metric in record.metrics}
            for place, records in enumerate(latest)
        }
        told = {place: estimates for place, estimates in told.items() if estimates}
        summaries = [summarise(list(estimates.values())) for estimates in told.values()]
        ranks: Sequence[Rank | None] = [None] * len(summaries)
        if metric in better:
            ranks = rank(summaries, higher_is_better=better[metric])
        for (place, estimates), summary, rank_ in zip(told.items(), summaries, ranks, strict=True):
            cells[place][metric] = Cell(summary, estimates, rank_)
    rows = [
        Row(subject, records, found, len(all_) - len(records))
        for (subject, all_), records, found in zip(models, latest, cells, strict=True)
    ]
    return Board(conditions_of(latest[0][0]), rows, metrics, better)


def newest(records: Sequence[Record]) -> list[Record]:
    """One record for each seed, in their order: the last that was made, where the same was measured more than once."""
    found = {
        str(seeds_of(record)): record for record in sorted(records, key=lambda record: (record.created, record.id))
    }
    return [record for _, record in sorted(found.items())]


def order(metric: str, ranked: Collection[str]) -> tuple[int, bool]:
    """The sort key of a metric's column, stable within its kind."""
    kind = 0 if metric in ranked else 3 if is_reference(metric) else 2 if is_cost(metric) else 1
    return kind, is_point(metric)
