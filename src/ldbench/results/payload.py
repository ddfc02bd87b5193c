"""The data of the page, as plain dicts and lists."""

import base64
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ldbench.core.estimate import Estimate
from ldbench.results.comparison import text
from ldbench.results.comparison_payload import comparison_of
from ldbench.results.curves import curves_of
from ldbench.results.guidance_table import board_guidance, guidance_tables
from ldbench.results.image_comparison import ImageComparison
from ldbench.results.leaderboards import Cell, Leaderboard, Row
from ldbench.results.metric_names import is_cost, is_reference
from ldbench.results.models import Model, flat
from ldbench.results.published import PaperTable
from ldbench.results.records import encode
from ldbench.results.replicates import artifact_of
from ldbench.results.table import BETTER, Table, entry_of, reference_entry

Plain = dict[str, Any]


def payload(
    boards: Sequence[Leaderboard],
    predictions: Sequence[Table],
    published: Sequence[PaperTable],
    sheets: Mapping[str, Sequence[Path]],
    created: str,
    comparisons: Sequence[tuple[Leaderboard, ImageComparison]] = (),
) -> Plain:
    """The data of the page: models, leaderboards, tables, predictions, images, sheets, papers' tables.

    The records behind the numbers are in `provenance_of`.
    """
    rows = [row for board in boards for row in board.rows]
    models = list(dict.fromkeys(row.model for row in rows))
    indices = {model: index for index, model in enumerate(models)}
    names = short_names(boards)
    return {
        "made": created,
        "version": version("ldbench"),
        "subjects": [
            describe_model(model, tokenizer)
            for model, tokenizer in zip(models, tokenizers_of(rows, indices), strict=True)
        ],
        "boards": [leaderboard_of(board, name, indices) for board, name in zip(boards, names, strict=True)],
        "numRecords": len({record.id for row in rows for record in row.records}),
        "sheets": [
            {"subject": indices[row.model], **sheet_of(board.conditions.job, name, path)}
            for board, name in zip(boards, names, strict=True)
            for row in board.rows
            for path in sheets.get(row.records[0].id, ())
        ],
        "guidance": [text_table(table) for table in guidance_tables(boards)],
        "comparisons": [
            comparison_of(comparison, names[boards.index(board)], indices) for board, comparison in comparisons
        ],
        "predictions": [text_table(table) for table in predictions],
        "published": [paper(table) for table in published],
    }


def tokenizers_of(rows: Sequence[Row], indices: Mapping[Model, int]) -> list[int | None]:
    """For each model the index of the model that is its tokenizer alone; None if that was not measured."""
    alone = {
        artifact_of(record, "tokenizer"): indices[row.model]
        for row in rows
        if row.model.generator is None
        for record in row.records
    }
    tokenizers: dict[int, int | None] = {}
    for row in rows:
        for record in row.records:
            if row.model.generator is not None and (tokenizer := artifact_of(record, "tokenizer")) in alone:
                tokenizers[indices[row.model]] = alone[tokenizer]
    return [tokenizers.get(index) for index in indices.values()]


def describe_model(model: Model, tokenizer: int | None) -> Plain:
    """A model."""
    return {
        **{"data": model.data, "tokenizer": model.tokenizer, "generator": model.generator},
        **{"variant": model.variant, "label": model.label, "standsOn": tokenizer, "samples": model.samples},
    }


def short_names(boards: Sequence[Leaderboard]) -> list[str]:
    """The name of each leaderboard's protocol, with settings if another differs in nothing else, and the guidance."""
    protocols = [board.conditions.key[:3] for board in boards]
    names = [
        board.conditions.name if protocols.count(board.conditions.key[:3]) > 1 else board.conditions.short_name
        for board in boards
    ]
    guided = map(board_guidance, boards)
    return [name if label is None else f"{name}, {label}" for name, label in zip(names, guided, strict=True)]


def leaderboard_of(board: Leaderboard, name: str, indices: Mapping[Model, int]) -> Plain:
    """A leaderboard, shown as `name`."""
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
        "note": board.extractor_differences,
        "rows": [
            {
                "subject": indices[row.model],
                "superseded": row.superseded,
                "cells": {metric: cell_of(cell) for metric, cell in row.cells.items()},
            }
            for row in board.rows
        ],
        "references": [
            {
                "label": row.label,
                "cells": {metric: reference_cell(estimate) for metric, estimate in row.estimates.items()},
            }
            for row in board.references
        ],
    }


def reference_cell(estimate: Estimate) -> Plain:
    """A value to read others by, as text."""
    entry = reference_entry(estimate)
    return {"text": entry.value, "noise": entry.noise}


def sheet_of(job: str, protocol: str, path: Path) -> Plain:
    """An image of a model, as a data URL."""
    content = base64.b64encode(path.read_bytes()).decode()
    return {"job": job, "protocol": protocol, "name": path.stem, "src": f"data:image/png;base64,{content}"}


def kind(metric: str) -> str:
    """The kind of a column."""
    return "cost" if is_cost(metric) else "reference" if is_reference(metric) else "number"


def cell_of(cell: Cell) -> Plain:
    """A number, as text too."""
    summary, entry = cell.summary, entry_of(cell)
    assert entry is not None
    return {
        **{
            "value": encode(summary.value),
            "low": encode(summary.low),
            "high": encode(summary.high),
            "seeds": summary.seeds,
        },
        **{"text": entry.value, "noise": entry.noise_and_seeds, "rank": entry.rank, "mark": entry.mark},
        "comparedOver": cell.rank.scope if cell.rank else None,
    }


def text_table(table: Table) -> Plain:
    """A table that is shown as it is; the labels of a row are joined."""
    rows = [
        {
            "name": " + ".join(names),
            "cells": [None if entry is None else [entry.value, entry.noise_and_seeds] for entry in entries],
        }
        for names, entries in table.rows
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
