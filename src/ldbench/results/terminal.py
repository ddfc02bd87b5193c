"""Tables in a terminal."""

from collections.abc import Sequence
from dataclasses import replace

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from ldbench.results.table import Entry, Table

GAP = 3  # characters between two columns
EDGES = 2  # characters beside the first and the last column


def show(tables: Sequence[Table], console: Console) -> None:
    """Prints each table under its title, and its notes below it.

    Models are rows. A table that is wider than the console is printed in several blocks of columns, each with all
    models, so that no name of a model or metric is broken.
    """
    for table in tables:
        console.print(Text(f"\n{table.title}", style="bold"))
        if table.columns:
            blocks = blocks_of(table, console.width)
            whole = all(fits(block, console.width) for block in blocks)
            for part in map(rich_table_of, blocks) if whole else [listing_of(table)]:
                console.print(part, soft_wrap=not whole)
        for note in table.notes:
            console.print(Text(note, style="dim"))


def blocks_of(table: Table, width: int) -> list[Table]:
    """The table as tables of fewer columns, as many as fit into a width; at least one in each."""
    room = width - EDGES - sum(label + GAP for label in label_widths(table))
    blocks: list[list[int]] = [[]]
    left = room
    for index, needed in enumerate(column_widths(table)):
        if blocks[-1] and needed > left:
            blocks.append([])
            left = room
        blocks[-1].append(index)
        left -= needed + GAP
    return [
        replace(
            table,
            columns=[table.columns[index] for index in block],
            rows=[(names, [entries[index] for index in block]) for names, entries in table.rows],
        )
        for block in blocks
    ]


def fits(table: Table, width: int) -> bool:
    """Whether a table fits into a width without breaking a name."""
    return sum(needed + GAP for needed in (*label_widths(table), *column_widths(table))) - GAP + EDGES <= width


def label_widths(table: Table) -> list[int]:
    """The widths of the columns of names."""
    return [
        max(map(cell_len, (label, *(names[index] for names, _ in table.rows))))
        for index, label in enumerate(table.labels)
    ]


def column_widths(table: Table) -> list[int]:
    """The widths of the columns of numbers."""
    return [
        max(
            cell_len(column),
            *(cell_len(line) for _, entries in table.rows for line in cell(entries[index]).plain.split("\n")),
        )
        if table.rows
        else cell_len(column)
        for index, column in enumerate(table.columns)
    ]


def rich_table_of(table: Table) -> RichTable:
    """The table as rich has it."""
    rich_table = empty_table([*table.labels, *table.columns], len(table.labels))
    for names, entries in table.rows:
        rich_table.add_row(*map(Text, names), *map(cell, entries))
    return rich_table


def listing_of(table: Table) -> Text:
    """A table whose names leave no room for numbers: each row is its names on a line, and its numbers below them."""
    lines = Text()
    for names, entries in table.rows:
        lines.append(f"{' + '.join(name for name in names if name)}\n")
        for column, entry in zip(table.columns, entries, strict=True):
            lines.append_text(Text.assemble(f"  {column}  ", Text(" ").join(cell(entry).split("\n")), "\n"))
    return lines


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
