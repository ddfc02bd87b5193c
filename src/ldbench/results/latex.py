"""Tables in LaTeX, with booktabs."""

from collections.abc import Sequence

from ldbench.results.table import ALIKE, Place, Table

SPECIAL = {
    **{
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
    },
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{
        "±": r"$\pm$",
        "≈": r"$\approx$",
        "∞": r"$\infty$",
        "↑": r"$\uparrow$",
        "↓": r"$\downarrow$",
        "[": "{[}",
        "]": "{]}",
    },
}


def render(tables: Sequence[Table], legend: str) -> str:
    """All tables, to be put in by \\input; they need \\usepackage{booktabs}."""
    head = f"% \\usepackage{{booktabs}}\n% {legend}\n"
    return head + "\n".join(environment(table) for table in tables if table.columns) + "\n"


def environment(table: Table) -> str:
    """One table with its title and notes as caption."""
    header = " & ".join(map(escape, [*table.labels, *table.columns]))
    body = [" & ".join([*map(escape, names), *map(cell, places)]) + r" \\" for names, places in table.rows]
    caption = " ".join(map(escape, [f"{table.title}.", *table.notes]))
    return "\n".join(
        [
            r"\begin{table}[t]",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{{'l' * len(table.labels)}{'r' * len(table.columns)}}}",
            r"\toprule",
            rf"{header} \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def cell(place: Place | None) -> str:
    """A number with its noise; the best, and what cannot be told from it, in bold."""
    if place is None:
        return "--"
    value = escape(place.value)
    value = rf"\textbf{{{value}}}" if place.best else value
    alike = f"\\,{escape(ALIKE)}" if place.mark == ALIKE else ""
    return value + (rf" {{\scriptsize {escape(place.beside)}}}" if place.beside else "") + alike


def escape(text: str) -> str:
    """Text in which no sign is a command. What pdflatex cannot set, and is not in our own tables, becomes a question mark."""
    return "".join(SPECIAL.get(sign, sign if sign.isascii() else "?") for sign in text)
