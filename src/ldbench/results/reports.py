"""What the leaderboard says: tables on the terminal and in files, two records side by side, records in one ranking."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ldbench.io.files import atomic_write
from ldbench.results import html, latex, markdown, spreadsheet, terminal
from ldbench.results.comparison import compare, find
from ldbench.results.leaderboards import Board, make_boards
from ldbench.results.numbers import noise, number
from ldbench.results.predictions import prediction_tables
from ldbench.results.published import PaperTable, published_table, read_tables
from ldbench.results.ranking import rank_records, summarise
from ldbench.results.ranking_conditions import conditions_of
from ldbench.results.records import Record, now
from ldbench.results.store import sheets
from ldbench.results.table import LEGEND, Place, Table, mark_of, table_of


@dataclass(frozen=True)
class Report:
    """Everything that is told of a folder of records."""

    records: Sequence[Record]
    boards: Sequence[Board]
    beside: Sequence[PaperTable]  # shown below our tables
    published: Sequence[PaperTable]  # in the page and the CSV file
    sheets: Mapping[str, Sequence[Path]]  # record id -> pictures

    @property
    def tables(self) -> list[Table]:
        """Ours, what predicts generation, then those of papers."""
        return [*map(table_of, self.boards), *prediction_tables(self.records), *map(published_table, self.beside)]

    def show(self) -> None:
        """Prints the tables."""
        console = stdout()
        terminal.show(self.tables, console)
        console.print(f"\n{LEGEND}", style="dim", markup=False, highlight=False)
        hidden = len(self.published) - len(self.beside)
        if hidden:
            console.print(
                f"{hidden} tables of papers on other data: published=all shows them; the page has them all.",
                style="dim",
                highlight=False,
            )

    def write(self, out: Path) -> list[Path]:
        """Writes Markdown, CSV, LaTeX and the page, each in one move, and returns the files."""
        contents = {
            "leaderboard.md": markdown.render(self.tables, LEGEND),
            "leaderboard.csv": spreadsheet.render(self.boards, self.published),
            "leaderboard.tex": latex.render(self.tables, LEGEND),
            "leaderboard.html": html.render(
                self.boards, prediction_tables(self.records), self.published, self.sheets, now()
            ),
        }
        for name, content in contents.items():
            with atomic_write(out / name) as scratch:
                scratch.write_text(content, encoding="utf-8")
        return [out / name for name in contents]


def make_report(records: Sequence[Record], folder: Path, papers: Path, published: str) -> Report:
    """The report of records in a folder, with the tables of papers: of the same data (`beside`), `all` or `none`."""
    tables = [] if published == "none" else read_tables(papers)
    ours = {record.subject["data"] for record in records}
    beside = [table for table in tables if published == "all" or table.data in ours]
    return Report(
        records, make_boards(records), beside, tables, {record.id: sheets(folder, record) for record in records}
    )


def compare_two(records: Sequence[Record], first: object, second: object) -> None:
    """Prints the fields in which two records differ, and whether their numbers may be ranked together."""
    a, b = find(records, first), find(records, second)
    console = stdout()
    fields = compare(a, b)
    if fields:
        terminal.side_by_side(fields, (f"{a.job}-{a.id}", f"{b.job}-{b.id}"), console)
    alike = conditions_of(a).key == conditions_of(b).key
    verdict = (
        "were measured alike: their numbers are ranked together"
        if alike
        else "were not measured alike: they are never ranked together"
    )
    console.print(f"They {verdict if fields else 'do not differ'}.", highlight=False)


def rank_by(records: Sequence[Record], metric: str, only: Sequence[object] | None) -> None:
    """Prints records by their place in a metric. Raises ValueError where they were not measured alike."""
    chosen = (
        [record for record in records if metric in record.metrics]
        if only is None
        else [find(records, name) for name in only]
    )
    if not chosen:
        raise ValueError(
            f"No record has {metric}. There are: {', '.join(sorted({name for record in records for name in record.metrics}))}."
        )
    rows = []
    for record, rank in rank_records(chosen, metric):
        summary = summarise([record.metrics[metric]])
        names = [f"{record.job}-{record.id}", *(record.subject[key] or "-" for key in ("tokenizer", "generator"))]
        rows.append((names, [Place(number(summary.value), noise(summary), 1, rank.place, mark_of(rank))]))
    conditions = conditions_of(chosen[0])
    title = f"{conditions.data}: {conditions.job}, protocol {conditions.name}"
    terminal.show([Table(title, ["record", "tokenizer", "generator"], [metric], rows)], stdout())


def stdout() -> Console:
    """The terminal; what is no terminal gets long lines rather than broken ones."""
    return Console(width=None if sys.stdout.isatty() else 160)
