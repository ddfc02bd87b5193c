"""All numbers as CSV, one a line: what a notebook or a spreadsheet reads."""

import csv
import io
import unicodedata
from collections.abc import Iterator, Sequence

from ldbench.results.leaderboards import Board
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
    },
    **dict.fromkeys(("origin", "records"), str),
}
Line = dict[str, str | float | int | None]


def lines(boards: Sequence[Board], published: Sequence[PaperTable]) -> Iterator[Line]:
    """One line for each number: ours with rank, `origin` measured; papers' without, `origin` their source."""
    for board in boards:
        *_, settings = board.conditions.key
        protocol = {
            "protocol": str(board.conditions.protocol["name"]),
            "protocol_hash": str(board.conditions.protocol["hash"]),
            "settings": settings,
        }
        for row in board.rows:
            who = {
                "tokenizer": row.subject.tokenizer,
                "generator": row.subject.generator,
                "variant": row.subject.variant,
            }
            for metric in board.metrics:
                if (cell := row.cells.get(metric)) is None:
                    continue
                said, rank = cell.summary, cell.rank
                yield {
                    **{"data": board.conditions.data, "job": board.conditions.job, **protocol, **who, "metric": metric},
                    **{
                        "better": BETTER[board.higher_is_better.get(metric)],
                        "value": said.value,
                        "low": said.low,
                        "high": said.high,
                    },
                    **{"seeds": said.seeds, "seed_spread": said.spread, "rank": rank.place if rank else None},
                    **{
                        "within_noise": None
                        if rank is None
                        else {True: "yes", False: "no", None: "unknown"}[rank.within_noise]
                    },
                    **{
                        "origin": "measured",
                        "records": " ".join(f"{board.conditions.job}-{identity}" for identity in cell.estimates),
                    },
                }
    for table in published:
        for record in table.records:
            who = {
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
                        **who,
                    },
                    **{
                        "metric": metric,
                        "better": BETTER[table.higher_is_better.get(metric)],
                        "value": estimate.value,
                        "origin": table.source,
                    },
                }


def render(boards: Sequence[Board], published: Sequence[PaperTable]) -> str:
    """The lines as CSV. What a spreadsheet would take for a formula begins with an apostrophe."""
    file = io.StringIO()
    table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows({key: harmless(value) for key, value in line.items()} for line in lines(boards, published))
    return file.getvalue()


def harmless(value: str | float | int | None) -> str | float | int | None:
    """A value that no spreadsheet runs: signs of full width and behind spaces begin a formula too."""
    if not isinstance(value, str):
        return value
    first = unicodedata.normalize("NFKC", value).lstrip()[:1]
    return f"'{value}" if first in ("=", "+", "-", "@") or value[:1] in ("\t", "\r") else value
