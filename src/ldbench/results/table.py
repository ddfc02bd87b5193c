"""Tables as text, independent of the output format."""

from collections.abc import Sequence
from dataclasses import dataclass

from ldbench.results.curves import curves_of
from ldbench.results.leaderboards import Cell, Leaderboard
from ldbench.results.numbers import noise, number
from ldbench.results.ranking import Rank

WITHIN_NOISE, UNKNOWN = "≈", "?"  # marks: within noise of the best; the noise is not known
BETTER = {True: "higher", False: "lower", None: None}  # as files and the page have it
ARROWS = {True: "↑", False: "↓", None: ""}  # whether larger values are better
LEGEND = (
    "The numbers of one table were measured under the same conditions, and are ranked by column: #1 is best. "
    f"{WITHIN_NOISE}: within noise of the best. {UNKNOWN}: one seed and no interval, so the noise is not known. "
    "± is the standard deviation over seeds (their number follows), [ ] the 95 % interval of one number. "
    "A floor is what real images get."
)


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
        return self.rank is not None and (self.rank == 1 or self.mark == WITHIN_NOISE)

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


def table_of(board: Leaderboard) -> Table:
    """A leaderboard as text. Points of curves are in the page and the CSV file only; a note names the curves."""
    conditions = board.conditions
    labels = ["tokenizer", *(["generator"] if board.generates else [])]
    rows = []
    for row in board.rows:
        tokenizer = f"{row.model.tokenizer} ({row.model.variant})" if row.model.variant else row.model.tokenizer
        names = [tokenizer, *([row.model.generator or "-"] if board.generates else [])]
        rows.append((names, [entry_of(row.cells.get(metric)) for metric in board.columns]))
    notes = [
        f"Curve {curve} over {variable}: {len(points)} points."
        for (curve, variable), points in curves_of(board.metrics).items()
    ]
    superseded = sum(row.superseded for row in board.rows)
    if superseded:
        notes.append(f"Left out: {superseded} older measurement{'s' if superseded > 1 else ''} of the same artifacts.")
    columns = [f"{metric} {ARROWS[board.higher_is_better.get(metric)]}".strip() for metric in board.columns]
    return Table(f"{conditions.data}: {conditions.job}, protocol {conditions.name}", labels, columns, rows, notes)


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
    """The mark of a rank: none for the first, and for one beyond the noise."""
    if rank is None or rank.position == 1:
        return ""
    return {True: WITHIN_NOISE, False: "", None: UNKNOWN}[rank.within_noise]
