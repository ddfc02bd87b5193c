"""Tables in Markdown, as GitHub reads it."""

import re
from collections.abc import Sequence

from ldbench.results.table import Entry, Table

SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~<>$@&-])")


def render(tables: Sequence[Table], legend: str) -> str:
    """All tables, each under a heading."""
    return "\n".join(["# Leaderboard\n", escape(legend), *map(section, tables)]) + "\n"


def section(table: Table) -> str:
    """One table with its notes."""
    header = [*map(escape, table.labels), *map(escape, table.columns)]
    rule = ["---"] * len(table.labels) + ["---:"] * len(table.columns)
    body = [[*map(escape, names), *map(cell, entries)] for names, entries in table.rows]
    lines = [f"| {' | '.join(row)} |" for row in (header, rule, *body)] if table.columns else []
    return "\n".join([f"\n## {escape(table.title)}\n", *lines, *(f"\n{escape(note)}" for note in table.notes)])


def cell(entry: Entry | None) -> str:
    """A number, its noise and its rank; the best in bold."""
    if entry is None:
        return ""
    value = f"**{escape(entry.value)}**" if entry.best else escape(entry.value)
    return " ".join(filter(None, [value, escape(entry.noise_and_seeds), escape(entry.rank_and_mark)]))


def escape(text: str) -> str:
    """Text that no renderer takes for markup, links, mentions or HTML; signs of numbers stay as they are."""
    if re.fullmatch(r"[-+\d.,e±∞\[\]() ]*", text):
        return text.replace("[", r"\[")
    return (
        SPECIAL.sub(r"\\\1", text).replace("\\-", "-").replace("\\(", "(").replace("\\)", ")").replace("\\@", "@\u200b")
    )
