"""Tables as they are printed, whatever the format: words in places."""

from collections.abc import Sequence
from dataclasses import dataclass

from ldbench.results.curves import curves_of
from ldbench.results.leaderboards import Board, Cell
from ldbench.results.numbers import noise, number
from ldbench.results.ranking import Rank

ALIKE, UNKNOWN = "≈", "?"  # cannot be told from the best; noise is not known
BETTER = {True: "higher", False: "lower", None: None}  # as files and the page have it
ARROWS = {True: "↑", False: "↓", None: ""}  # whether larger values are better
LEGEND = (
    "Numbers of one table were measured alike, and are ranked by column: #1 is best. "
    f"{ALIKE}: within noise of the best. {UNKNOWN}: one seed and no interval, so nobody knows. "
    "± is the standard deviation over seeds (their number behind it), [ ] the 95 % interval of one. A floor is what real images get."
)


@dataclass(frozen=True)
class Place:
    """One printed number."""

    value: str
    noise: str = ""
    seeds: int = 1
    rank: int | None = None
    mark: str = ""

    @property
    def best(self) -> bool:
        """Whether it is first, or cannot be told from the first."""
        return self.rank is not None and (self.rank == 1 or self.mark == ALIKE)

    @property
    def beside(self) -> str:
        """What stands behind the value: its noise and the number of seeds."""
        return f"{self.noise} ({self.seeds})" if self.seeds > 1 else self.noise

    @property
    def standing(self) -> str:
        """Its rank and mark."""
        return "" if self.rank is None else f"#{self.rank}{self.mark}"


@dataclass(frozen=True)
class Table:
    """A table with its title and what is to be said below it."""

    title: str
    labels: Sequence[str]  # of the first columns
    columns: Sequence[str]  # metrics, with their arrows
    rows: Sequence[tuple[Sequence[str], Sequence[Place | None]]]  # what stands in the first columns; the numbers
    notes: Sequence[str] = ()


def table_of(board: Board) -> Table:
    """A board in words; points of curves are left to the page and the CSV file, and are named in a note."""
    conditions = board.conditions
    labels = ["tokenizer", *(["generator"] if board.generates else [])]
    rows = []
    for row in board.rows:
        tokenizer = f"{row.subject.tokenizer} ({row.subject.variant})" if row.subject.variant else row.subject.tokenizer
        names = [tokenizer, *([row.subject.generator or "-"] if board.generates else [])]
        rows.append((names, [place_of(row.cells.get(metric)) for metric in board.columns]))
    notes = [
        f"Curve {curve} over {variable}: {len(points)} points."
        for (curve, variable), points in curves_of(board.metrics).items()
    ]
    superseded = sum(row.superseded for row in board.rows)
    if superseded:
        notes.append(f"Left out: {superseded} older measurement{'s' if superseded > 1 else ''} of the same artifacts.")
    columns = [f"{metric} {ARROWS[board.higher_is_better.get(metric)]}".strip() for metric in board.columns]
    return Table(f"{conditions.data}: {conditions.job}, protocol {conditions.name}", labels, columns, rows, notes)


def place_of(cell: Cell | None) -> Place | None:
    """A cell in words."""
    if cell is None:
        return None
    return Place(
        number(cell.summary.value),
        noise(cell.summary),
        cell.summary.seeds,
        cell.rank and cell.rank.place,
        mark_of(cell.rank),
    )


def mark_of(rank: Rank | None) -> str:
    """What is set behind a rank; nothing behind the first, and behind one that is beyond the noise."""
    if rank is None or rank.place == 1:
        return ""
    return {True: ALIKE, False: "", None: UNKNOWN}[rank.within_noise]
