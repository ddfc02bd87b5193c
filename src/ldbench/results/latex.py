"""Tables in LaTeX, with booktabs."""

from collections.abc import Sequence

from ldbench.results.table import WITHIN_NOISE, Entry, Table

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
        "¹": r"$^1$",
        "∞": r"$\infty$",
        "↑": r"$\uparrow$",
        "↓": r"$\downarrow$",
        "[": "{[}",
        "]": "{]}",
    },
}


def render(tables: Sequence[Table], legend: str) -> str:
    """All tables, for \\input; they need \\usepackage{booktabs}."""
    head = f"% \\usepackage{{booktabs}}\n% {legend}\n"
    return head + "\n".join(environment(table) for table in tables if table.columns) + "\n"


def environment(table: Table) -> str:
    """One table with its title and notes as caption."""
    header = " & ".join(map(escape, [*table.labels, *table.columns]))
    body = [" & ".join([*map(escape, names), *map(cell, entries)]) + r" \\" for names, entries in table.rows]
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


def cell(entry: Entry | None) -> str:
    """A number with its noise; in bold if it is the best or within noise of the best."""
    if entry is None:
        return "--"
    value = escape(entry.value)
    value = rf"\textbf{{{value}}}" if entry.best else value
    mark = f"\\,{escape(entry.mark)}" if WITHIN_NOISE in entry.mark else ""
    return value + (rf" {{\scriptsize {escape(entry.noise_and_seeds)}}}" if entry.noise_and_seeds else "") + mark


def escape(text: str) -> str:
    """Text without LaTeX commands. A character that pdflatex cannot set, and that no table of ours has, becomes `?`."""
    return "".join(SPECIAL.get(sign, sign if sign.isascii() else "?") for sign in text)
