"""Tables in a terminal."""

from collections.abc import Sequence

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from ldbench.results.table import Entry, Table

MOST_COLUMNS = 8  # metrics; a table with more is transposed


def show(tables: Sequence[Table], console: Console) -> None:
    """Prints each table under its title, and its notes below it."""
    for table in tables:
        console.print(Text(f"\n{table.title}", style="bold"))
        if table.columns:
            console.print(rich_table_of(table))
        for note in table.notes:
            console.print(Text(note, style="dim"))


def rich_table_of(table: Table) -> RenderableType:
    """The table as rich has it, transposed if it has many metrics."""
    if len(table.columns) > MOST_COLUMNS:
        rich_table = empty_table(["", *(" + ".join(names) for names, _ in table.rows)], 1)
        for index, column in enumerate(table.columns):
            rich_table.add_row(Text(column), *(cell(entries[index]) for _, entries in table.rows))
        return rich_table
    rich_table = empty_table([*table.labels, *table.columns], len(table.labels))
    for names, entries in table.rows:
        rich_table.add_row(*map(Text, names), *map(cell, entries))
    return rich_table


def empty_table(columns: Sequence[str], labels: int) -> RichTable:
    """An empty table with its header; columns after the labels are right-aligned."""
    rich_table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, header_style="")
    for index, column in enumerate(columns):
        rich_table.add_column(Text(column), justify="left" if index < labels else "right", overflow="fold")
    return rich_table


def cell(entry: Entry | None) -> Text:
    """A number, its noise and its rank; the best in bold. All of it is plain text, without markup."""
    if entry is None:
        return Text("-", style="dim")
    text = Text(entry.value, style="bold" if entry.best else "")
    for part, separator in ((entry.rank_and_mark, " "), (entry.noise_and_seeds, "\n")):
        if part:
            text.append(f"{separator}{part}", style="not bold dim")
    return text


def side_by_side(fields: Sequence[tuple[str, str, str]], names: tuple[str, str], console: Console) -> None:
    """Prints the fields that differ, with both values."""
    rich_table = empty_table(["field", *names], 3)
    for field in fields:
        rich_table.add_row(*map(Text, field))
    console.print(rich_table)
