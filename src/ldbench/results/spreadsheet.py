"""All numbers as CSV, one a line, for notebooks and spreadsheets."""

import csv
import io
import unicodedata
from collections.abc import Iterator, Sequence

from ldbench.results.leaderboards import Leaderboard
from ldbench.results.published import PaperTable
from ldbench.results.table import BETTER

COLUMNS: dict[str, type] = {
    **dict.fromkeys(
        (
            "data",
            "job",
            "protocol",
            "protocol_hash",
            "settings",
            "tokenizer",
            "generator",
            "variant",
            "metric",
            "better",
        ),
        str,
    ),
    **{
        "value": float,
        "low": float,
        "high": float,
        "seeds": int,
        "seed_spread": float,
        "rank": int,
        "within_noise": str,
        "compared_over": str,
    },
    **dict.fromkeys(("origin", "records"), str),
}
Line = dict[str, str | float | int | None]


def lines(boards: Sequence[Leaderboard], published: Sequence[PaperTable]) -> Iterator[Line]:
    """One line for each number: measured ones have a rank and `origin` measured, papers' ones their source."""
    for board in boards:
        *_, settings = board.conditions.key
        protocol = {
            "protocol": str(board.conditions.protocol["name"]),
            "protocol_hash": str(board.conditions.protocol["hash"]),
            "settings": settings,
        }
        for row in board.rows:
            names = {
                "tokenizer": row.model.tokenizer,
                "generator": row.model.generator,
                "variant": row.model.variant,
            }
            for metric in board.metrics:
                if (cell := row.cells.get(metric)) is None:
                    continue
                summary, rank = cell.summary, cell.rank
                yield {
                    **{
                        "data": board.conditions.data,
                        "job": board.conditions.job,
                        **protocol,
                        **names,
                        "metric": metric,
                    },
                    **{
                        "better": BETTER[board.higher_is_better.get(metric)],
                        "value": summary.value,
                        "low": summary.low,
                        "high": summary.high,
                    },
                    **{"seeds": summary.seeds, "seed_spread": summary.spread, "rank": rank.position if rank else None},
                    **{
                        "within_noise": None
                        if rank is None
                        else {True: "yes", False: "no", None: "unknown"}[rank.within_noise],
                        "compared_over": rank.scope if rank else None,
                    },
                    **{
                        "origin": "measured",
                        "records": " ".join(f"{board.conditions.job}-{identity}" for identity in cell.estimates),
                    },
                }
        for reference in board.references:
            for metric, estimate in reference.estimates.items():
                yield dict.fromkeys(COLUMNS) | {
                    **{"data": board.conditions.data, "job": board.conditions.job, **protocol},
                    **{"metric": metric, "better": BETTER[board.higher_is_better.get(metric)]},
                    **{"value": estimate.value, "low": estimate.low, "high": estimate.high},
                    "origin": reference.label,
                }
    for table in published:
        for record in table.records:
            names = {
                "tokenizer": record.subject["tokenizer"],
                "generator": record.subject["generator"],
                "variant": record.config["note"],
            }
            for metric, estimate in record.metrics.items():
                yield dict.fromkeys(COLUMNS) | {
                    **{
                        "data": table.data,
                        "job": "published",
                        "protocol": "as published",
                        "protocol_hash": table.protocol["hash"],
                        **names,
                    },
                    **{
                        "metric": metric,
                        "better": BETTER[table.higher_is_better.get(metric)],
                        "value": estimate.value,
                        "origin": table.source,
                    },
                }


def render(boards: Sequence[Leaderboard], published: Sequence[PaperTable]) -> str:
    """The lines as CSV. Text that a spreadsheet would evaluate as a formula gets a leading apostrophe."""
    file = io.StringIO()
    table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows({key: escape(value) for key, value in line.items()} for line in lines(boards, published))
    return file.getvalue()


def escape(value: str | float | int | None) -> str | float | int | None:
    """A value that no spreadsheet evaluates; full-width signs and signs after spaces start a formula too."""
    if not isinstance(value, str):
        return value
    first = unicodedata.normalize("NFKC", value).lstrip()[:1]
    return f"'{value}" if first in ("=", "+", "-", "@") or value[:1] in ("\t", "\r") else value
