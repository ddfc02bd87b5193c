"""Tables in a terminal."""

from collections.abc import Sequence

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from ldbench.results.table import Place, Table

MOST = 8  # metrics across; more of them go down, with the models across


def show(tables: Sequence[Table], console: Console) -> None:
    """Prints each table under its title, and its notes below it."""
    for table in tables:
        console.print(Text(f"\n{table.title}", style="bold"))
        if table.columns:
            console.print(grid(table))
        for note in table.notes:
            console.print(Text(note, style="dim"))


def grid(table: Table) -> RenderableType:
    """The table itself; one of many metrics lies on its side."""
    if len(table.columns) > MOST:
        drawn = headed(["", *(" + ".join(names) for names, _ in table.rows)], 1)
        for place, column in enumerate(table.columns):
            drawn.add_row(Text(column), *(cell(places[place]) for _, places in table.rows))
        return drawn
    drawn = headed([*table.labels, *table.columns], len(table.labels))
    for names, places in table.rows:
        drawn.add_row(*map(Text, names), *map(cell, places))
    return drawn


def headed(columns: Sequence[str], labels: int) -> RichTable:
    """An empty table with its header; what is no label stands to the right."""
    drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, header_style="")
    for place, column in enumerate(columns):
        drawn.add_column(Text(column), justify="left" if place < labels else "right", overflow="fold")
    return drawn


def cell(place: Place | None) -> Text:
    """A number, its noise and its rank; the best in bold. Names and numbers come as plain text: no markup of theirs counts."""
    if place is None:
        return Text("-", style="dim")
    text = Text(place.value, style="bold" if place.best else "")
    for part, before in ((place.standing, " "), (place.beside, "\n")):
        if part:
            text.append(f"{before}{part}", style="not bold dim")
    return text


def side_by_side(fields: Sequence[tuple[str, str, str]], names: tuple[str, str], console: Console) -> None:
    """Prints fields that differ, each with its value in both."""
    drawn = headed(["field", *names], 3)
    for field in fields:
        drawn.add_row(*map(Text, field))
    console.print(drawn)
