"""Tables as text, independent of the output format."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ldbench.core.estimate import Estimate
from ldbench.results.curves import curves_of
from ldbench.results.leaderboards import Cell, Leaderboard, Row
from ldbench.results.metric_names import ROWS
from ldbench.results.numbers import noise, number
from ldbench.results.ranking import Rank
from ldbench.results.summaries import summarize

# marks: within noise of the best; the noise is not known; one of the two has one seed, so it is of these weights
WITHIN_NOISE, UNKNOWN, THESE_WEIGHTS = "≈", "?", "¹"
BETTER = {True: "higher", False: "lower", None: None}  # as files and the page have it
ARROWS = {True: "↑", False: "↓", None: ""}  # whether larger values are better


@dataclass(frozen=True)
class Entry:
    """One number of a table as text."""

    value: str
    noise: str = ""
    seeds: int = 1
    rank: int | None = None
    mark: str = ""

    @property
    def best(self) -> bool:
        """Whether it is the first, or within noise of the first."""
        return self.rank is not None and (self.rank == 1 or WITHIN_NOISE in self.mark)

    @property
    def noise_and_seeds(self) -> str:
        """Its noise and the number of seeds."""
        return f"{self.noise} ({self.seeds})" if self.seeds > 1 else self.noise

    @property
    def rank_and_mark(self) -> str:
        """Its rank and mark."""
        return "" if self.rank is None else f"#{self.rank}{self.mark}"


@dataclass(frozen=True)
class Table:
    """A table with its title and the notes below it."""

    title: str
    labels: Sequence[str]  # of the first columns
    columns: Sequence[str]  # metrics, with their arrows
    rows: Sequence[tuple[Sequence[str], Sequence[Entry | None]]]  # labels; numbers
    notes: Sequence[str] = ()


def legend_of(tables: Sequence[Table]) -> str:
    """What the marks, signs and rows of these tables mean; nothing of those that none of them has."""
    numbers = [entry for table in tables for _, entries in table.rows for entry in entries if entry is not None]
    marks, noises = "".join(entry.mark for entry in numbers), [entry.noise for entry in numbers]
    rows = {name for table in tables for names, _ in table.rows for name in names}
    references = [label for label in ROWS.values() if f"({label})" in rows]
    parts = {
        "#1 is the best of a column.": any(entry.rank is not None for entry in numbers),
        f"{WITHIN_NOISE}: within noise of it (of equal models, any is beyond it in at most 5 % of columns).": (
            WITHIN_NOISE in marks
        ),
        f"{THESE_WEIGHTS}: for these weights, not over tokenizer seeds.": THESE_WEIGHTS in marks,
        f"{UNKNOWN}: noise unknown.": UNKNOWN in marks,
        "±: standard deviation over seeds (their number).": any("±" in noise for noise in noises),
        "[ ]: 95 % interval.": any(noise.startswith("[") for noise in noises),
        f"In brackets, to read others by: {', '.join(references)}.": bool(references),
    }
    return " ".join(part for part, used in parts.items() if used)


def ordered_rows(board: Leaderboard) -> list[Row]:
    """The rows of a leaderboard by their rank in its first ranked column, those without one last."""
    first = board.first_ranked

    def position(row: Row) -> float:
        cell = row.cells.get(first) if first is not None else None
        return math.inf if cell is None or cell.rank is None else cell.rank.position

    return sorted(board.rows, key=position)


def table_of(board: Leaderboard, guidance: str | None = None) -> Table:
    """A leaderboard as text, best models first. Points of curves are in the page and the CSV file only; a note names
    the curves.

    `guidance`: how its samples were guided, for the title.
    """
    conditions = board.conditions
    labels = [board.subject, *(["generator"] if board.generates else [])]
    rows = []
    for row in ordered_rows(board):
        tokenizer = f"{row.model.tokenizer} ({row.model.variant})" if row.model.variant else row.model.tokenizer
        names = [tokenizer, *([row.model.generator or "-"] if board.generates else [])]
        rows.append((names, [entry_of(row.cells.get(metric)) for metric in board.columns]))
    blank = [""] * (len(labels) - 1)
    for reference in board.references:
        entries = [
            None if (estimate := reference.estimates.get(metric)) is None else reference_entry(estimate)
            for metric in board.columns
        ]
        rows.append(([f"({reference.label})", *blank], entries))
    notes = [
        f"Curve {curve} over {variable}: {len(points)} points."
        for (curve, variable), points in curves_of(board.metrics).items()
    ]
    superseded = sum(row.superseded for row in board.rows)
    if superseded:
        notes.append(f"Left out: {superseded} older measurement{'s' if superseded > 1 else ''} of the same seeds.")
    if board.extractor_differences is not None:
        notes.append(board.extractor_differences)
    columns = [f"{metric} {ARROWS[board.higher_is_better.get(metric)]}".strip() for metric in board.columns]
    job = conditions.job if guidance is None else f"{conditions.job}, {guidance}"
    return Table(f"{conditions.data}: {job}, protocol {conditions.name}", labels, columns, rows, notes)


def reference_entry(estimate: Estimate) -> Entry:
    """A value to read others by, as text; it has no rank."""
    return Entry(number(estimate.value), noise(summarize([[estimate]])))


def entry_of(cell: Cell | None) -> Entry | None:
    """A cell as text."""
    if cell is None:
        return None
    return Entry(
        number(cell.summary.value),
        noise(cell.summary),
        cell.summary.seeds,
        cell.rank.position if cell.rank else None,
        mark_of(cell.rank),
    )


def mark_of(rank: Rank | None) -> str:
    """The mark of a rank: none for the first, and for one beyond the noise over seeds."""
    if rank is None or rank.position == 1:
        return ""
    mark = {True: WITHIN_NOISE, False: "", None: UNKNOWN}[rank.within_noise]
    return mark + (THESE_WEIGHTS if rank.scope not in (None, "seeds") else "")
