"""The output of the leaderboard: tables in the terminal and in files, two records compared, records ranked."""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from ldbench.io.files import atomic_write, digest
from ldbench.results import html, latex, markdown, spreadsheet, terminal
from ldbench.results.board_comparisons import compare_boards, compare_named, page_comparisons
from ldbench.results.comparison import compare, find_record
from ldbench.results.comparison_sheet import write_sheet
from ldbench.results.guidance_table import board_guidance, guidance_tables
from ldbench.results.image_comparison import ImageComparison, SheetSettings
from ldbench.results.leaderboards import Leaderboard, build_leaderboards
from ldbench.results.numbers import noise, number
from ldbench.results.per_image import read_values
from ldbench.results.predictions import prediction_tables
from ldbench.results.published import PaperTable, published_table, read_tables
from ldbench.results.ranking import rank_records
from ldbench.results.ranking_conditions import conditions_of
from ldbench.results.records import Record, now
from ldbench.results.space import PAGE, write_space
from ldbench.results.store import sheets
from ldbench.results.summaries import summarize
from ldbench.results.table import Entry, Table, legend_of, mark_of, table_of


@dataclass(frozen=True)
class Report:
    """The contents of the leaderboard of a folder of records."""

    records: Sequence[Record]
    leaderboards: Sequence[Leaderboard]
    beside: Sequence[PaperTable]  # shown below the leaderboards
    published: Sequence[PaperTable]  # in the page and the CSV file
    sheets: Mapping[str, Sequence[Path]]  # record id -> pictures
    comparisons: Sequence[tuple[Leaderboard, ImageComparison]]  # of the models of leaderboards, by their images

    @property
    def tables(self) -> list[Table]:
        """Leaderboards, models by their guidance, predictions of generation quality, then papers' tables."""
        return [
            *(table_of(board, board_guidance(board)) for board in self.leaderboards),
            *guidance_tables(self.leaderboards),
            *prediction_tables(self.records),
            *map(published_table, self.beside),
        ]

    def show(self) -> None:
        """Prints the tables."""
        console = stdout()
        terminal.show(self.tables, console)
        console.print(f"\n{legend_of(self.tables)}", style="dim", markup=False, highlight=False)
        hidden = len(self.published) - len(self.beside)
        if hidden:
            console.print(
                f"{hidden} tables of papers on other data: published=all shows them; the page has them all.",
                style="dim",
                highlight=False,
            )

    @property
    def contents(self) -> dict[str, str]:
        """The files of the leaderboard by name: Markdown, CSV, LaTeX and the page."""
        return {
            "leaderboard.md": markdown.render(self.tables, legend_of(self.tables)),
            "leaderboard.csv": spreadsheet.render(self.leaderboards, self.published),
            "leaderboard.tex": latex.render(self.tables, legend_of(self.tables)),
            "leaderboard.html": html.render(
                self.leaderboards,
                prediction_tables(self.records),
                self.published,
                self.sheets,
                now(),
                self.comparisons,
            ),
        }

    def write(self, out: Path) -> list[Path]:
        """Writes the files, each atomically, and returns them."""
        contents = self.contents
        for name, content in contents.items():
            with atomic_write(out / name) as scratch:
                scratch.write_text(content, encoding="utf-8")
        return [out / name for name in contents]

    def write_space(self, space: Path, folder: Path) -> None:
        """Writes a static folder of the leaderboard, see `space`, with the records in `folder`."""
        contents = self.contents
        files = {PAGE: contents["leaderboard.html"]} | {
            name: contents[name] for name in ("leaderboard.md", "leaderboard.csv")
        }
        models = {row.model for board in self.leaderboards for row in board.rows}
        write_space(space, self.records, folder, files, num_models=len(models))


def build_report(
    records: Sequence[Record], folder: Path, papers: Path, published: str, images: SheetSettings
) -> Report:
    """The report of records in a folder, with the tables of papers: of the same data (`beside`), `all` or `none`, and
    with the images that are saved beside the records.
    """
    tables = [] if published == "none" else read_tables(papers)
    ours = {record.subject["data"] for record in records}
    beside = [table for table in tables if published == "all" or table.data in ours]
    boards = build_leaderboards(records, partial(read_values, folder))
    return Report(
        records,
        boards,
        beside,
        tables,
        {record.id: sheets(folder, record) for record in records},
        page_comparisons(boards, folder, images),
    )


def write_sheets(
    records: Sequence[Record],
    folder: Path,
    out: Path,
    kind: str,
    only: Sequence[object] | None,
    settings: SheetSettings,
) -> list[Path]:
    """Writes a sheet of saved images for each leaderboard, or one of the records named by `only`; returns the files.

    Raises ValueError without saved images, and for images that cannot be compared.
    """
    if only is None:
        comparisons = compare_boards(build_leaderboards(records), folder, kind, settings)
    else:
        chosen = [find_record(records, name) for name in only]
        comparisons = [compare_named(records, chosen, folder, kind, settings)]
    files = [out / f"leaderboard.{sheet_name(comparison)}.png" for comparison in comparisons]
    for comparison, path in zip(comparisons, files, strict=True):
        write_sheet(comparison, path)
    return files


def sheet_name(comparison: ImageComparison) -> str:
    """The name of a sheet's file: what it shows, the data, and the conditions of its records."""
    data = re.sub(r"[^\w-]", "_", comparison.conditions.data)
    crop = "-crop" if comparison.crop else ""
    return f"{comparison.kind}{crop}-{data}-{digest(list(comparison.conditions.key))[:8]}"


def compare_two(records: Sequence[Record], first: object, second: object) -> None:
    """Prints the fields in which two records differ, and whether their numbers may be ranked together."""
    a, b = find_record(records, first), find_record(records, second)
    console = stdout()
    fields = compare(a, b)
    if fields:
        terminal.side_by_side(fields, (f"{a.job}-{a.id}", f"{b.job}-{b.id}"), console)
    same = conditions_of(a).key == conditions_of(b).key
    verdict = (
        "were measured under the same conditions: their numbers are ranked together"
        if same
        else "were measured under different conditions: they are never ranked together"
    )
    console.print(f"They {verdict if fields else 'do not differ'}.", highlight=False)


def rank_by(records: Sequence[Record], folder: Path, metric: str, only: Sequence[object] | None) -> None:
    """Prints records of a folder in the order of a metric. Raises ValueError if their conditions differ."""
    chosen = (
        [record for record in records if metric in record.metrics]
        if only is None
        else [find_record(records, name) for name in only]
    )
    if not chosen:
        metrics = sorted({name for record in records for name in record.metrics})
        raise ValueError(f"No record has {metric}. Metrics: {', '.join(metrics)}.")
    rows = []
    for record, rank in rank_records(chosen, metric, partial(read_values, folder)):
        summary = summarize([[record.metrics[metric]]])
        names = [f"{record.job}-{record.id}", *(record.subject[key] or "-" for key in ("tokenizer", "generator"))]
        rows.append((names, [Entry(number(summary.value), noise(summary), 1, rank.position, mark_of(rank))]))
    conditions = conditions_of(chosen[0])
    title = f"{conditions.data}: {conditions.job}, protocol {conditions.name}"
    terminal.show([Table(title, ["record", "tokenizer", "generator"], [metric], rows)], stdout())


def stdout() -> Console:
    """The console of standard output; one that is not a terminal gets long lines, without line breaks."""
    return Console(width=None if sys.stdout.isatty() else 160)
