"""What the page shows, as plain data."""

import base64
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ldbench.core.estimate import Estimate
from ldbench.results.comparison import text
from ldbench.results.curves import curves_of
from ldbench.results.leaderboards import Board, Cell, Row
from ldbench.results.metric_names import is_cost, is_reference
from ldbench.results.models import Subject, flat, seeds_of
from ldbench.results.numbers import number
from ldbench.results.published import PaperTable
from ldbench.results.records import Record, encode
from ldbench.results.table import BETTER, Table, place_of

Plain = dict[str, Any]


def payload(
    boards: Sequence[Board],
    predictions: Sequence[Table],
    published: Sequence[PaperTable],
    sheets: Mapping[str, Sequence[Path]],
    made: str,
) -> Plain:
    """All that the page knows: models, boards, records, what predicts generation, sheets, and papers' tables."""
    rows = [row for board in boards for row in board.rows]
    subjects = list(dict.fromkeys(row.subject for row in rows))
    places = {subject: place for place, subject in enumerate(subjects)}
    names = short_names(boards)
    return {
        "made": made,
        "version": version("ldbench"),
        "subjects": [
            subject_of(subject, tokenizer)
            for subject, tokenizer in zip(subjects, tokenizers_of(rows, places), strict=True)
        ],
        "boards": [board_of(board, name, places) for board, name in zip(boards, names, strict=True)],
        "records": {record.id: record_of(record) for row in rows for record in row.records},
        "sheets": [
            {"subject": places[row.subject], **sheet_of(board.conditions.job, name, path)}
            for board, name in zip(boards, names, strict=True)
            for row in board.rows
            for path in sheets.get(row.records[0].id, ())
        ],
        "predictions": [prediction(table) for table in predictions],
        "published": [paper(table) for table in published],
    }


def tokenizers_of(rows: Sequence[Row], places: Mapping[Subject, int]) -> list[int | None]:
    """For each subject the place of the tokenizer that it stands on, by the artifact's name; None where that was not measured alone."""
    alone = {
        record.artifacts.get("tokenizer"): places[row.subject]
        for row in rows
        if row.subject.generator is None
        for record in row.records
    }
    found: dict[int, int | None] = {}
    for row in rows:
        for record in row.records:
            if row.subject.generator is not None and record.artifacts.get("tokenizer") in alone:
                found[places[row.subject]] = alone[record.artifacts["tokenizer"]]
    return [found.get(place) for place in places.values()]


def subject_of(subject: Subject, tokenizer: int | None) -> Plain:
    """A model."""
    return {
        **{"data": subject.data, "tokenizer": subject.tokenizer, "generator": subject.generator},
        **{"variant": subject.variant, "label": subject.label, "standsOn": tokenizer},
    }


def short_names(boards: Sequence[Board]) -> list[str]:
    """The protocol of each board; with its settings where another board differs in nothing else."""
    protocols = [board.conditions.key[:3] for board in boards]
    return [
        board.conditions.name if protocols.count(board.conditions.key[:3]) > 1 else board.conditions.short_name
        for board in boards
    ]


def board_of(board: Board, name: str, places: Mapping[Subject, int]) -> Plain:
    """A board, called `name`."""
    return {
        **{"data": board.conditions.data, "job": board.conditions.job, "name": name, "generates": board.generates},
        "fields": [[key, text(value)] for key, value in flat(board.conditions.protocol).items()],
        "settings": [[key, text(value)] for key, value in board.conditions.settings.items()],
        "columns": [
            {"metric": metric, "better": BETTER[board.higher_is_better.get(metric)], "kind": kind(metric)}
            for metric in board.columns
        ],
        "curves": [
            {"name": name, "variable": variable, "points": [[point.x, point.metric] for point in points]}
            for (name, variable), points in curves_of(board.metrics).items()
        ],
        "rows": [
            {
                "subject": places[row.subject],
                "superseded": row.superseded,
                "cells": {metric: cell_of(cell) for metric, cell in row.cells.items()},
            }
            for row in board.rows
        ],
    }


def sheet_of(job: str, protocol: str, path: Path) -> Plain:
    """A picture of a model, held in an address."""
    content = base64.b64encode(path.read_bytes()).decode()
    return {"job": job, "protocol": protocol, "name": path.stem, "src": f"data:image/png;base64,{content}"}


def kind(metric: str) -> str:
    """What a column is for."""
    return "cost" if is_cost(metric) else "reference" if is_reference(metric) else "number"


def cell_of(cell: Cell) -> Plain:
    """A number, in words too."""
    summary, place = cell.summary, place_of(cell)
    assert place is not None
    return {
        **{
            "value": encode(summary.value),
            "low": encode(summary.low),
            "high": encode(summary.high),
            "seeds": summary.seeds,
        },
        **{"text": place.value, "noise": place.beside, "rank": place.rank, "mark": place.mark},
        "estimates": [
            [identity, number(estimate.value), interval(estimate)] for identity, estimate in cell.estimates.items()
        ],
    }


def interval(estimate: Estimate) -> str | None:
    """A 95 % interval in words."""
    return (
        None if estimate.low is None or estimate.high is None else f"{number(estimate.low)} to {number(estimate.high)}"
    )


def record_of(record: Record) -> Plain:
    """Where a number comes from."""
    return {
        **{
            "name": f"{record.job}-{record.id}",
            "created": record.created,
            "seeds": seeds_of(record),
            "artifacts": dict(record.artifacts),
        },
        "environment": [[key, text(value)] for key, value in flat(record.environment).items()],
        "config": dict(record.config),
    }


def prediction(table: Table) -> Plain:
    """A table of what predicts generation."""
    rows = [
        {"name": name, "cells": [None if place is None else [place.value, place.noise] for place in places]}
        for (name,), places in table.rows
    ]
    return {"title": table.title, "columns": list(table.columns), "rows": rows, "notes": list(table.notes)}


def paper(table: PaperTable) -> Plain:
    """A paper's table."""
    return {
        **{
            "title": table.title,
            "source": table.source,
            "url": table.url,
            "data": table.data,
            "metrics": table.metrics,
        },
        "fields": [
            [key, text(value)] for key, value in table.protocol.items() if key not in ("hash", "name", "source")
        ],
        "rows": [
            {
                **{
                    "tokenizer": record.subject["tokenizer"],
                    "generator": record.subject["generator"],
                    "note": record.config["note"],
                },
                "values": {metric: estimate.value for metric, estimate in record.metrics.items()},
                "texts": {metric: f"{estimate.value:g}" for metric, estimate in record.metrics.items()},
            }
            for record in table.records
        ],
    }
