"""Tables of papers, as published: shown beside measured numbers, and never ranked with them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldbench.core.estimate import Estimate
from ldbench.results.records import SCHEMA, Record, merge_directions, protocol_hash
from ldbench.results.table import Entry, Table

JOB = "published"
KEYS = {"title", "source", "url", "date", "data", "protocol", "higher_is_better", "rows"}
ROW_KEYS = {"tokenizer", "generator", "note", "metrics"}


@dataclass(frozen=True)
class PaperTable:
    """A table of a paper."""

    title: str  # what it compares
    source: str  # paper and number of the table
    url: str
    data: str
    protocol: Mapping[str, Any]  # as far as the paper states it
    records: Sequence[Record]  # in the paper's order; each row's note is in its config

    @property
    def metrics(self) -> list[str]:
        """The columns, in the paper's order."""
        return list(dict.fromkeys(name for record in self.records for name in record.metrics))

    @property
    def higher_is_better(self) -> dict[str, bool]:
        """Whether larger values are better, of each metric, as far as the file holds it."""
        return merge_directions(self.records)


def read_tables(folder: Path) -> list[PaperTable]:
    """The tables in a folder's JSON files. Raises ValueError, with file and key, for what is wrong in them."""
    return [read_table(path) for path in sorted(folder.glob("*.json"))]


def read_table(path: Path) -> PaperTable:
    """One paper's table. Raises ValueError with the file and the key of what is wrong."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.keys() != KEYS:
        raise ValueError(
            f"{path}: a published table has the keys {', '.join(sorted(KEYS))}; got {', '.join(sorted(content))}."
        )
    for name, better in content["higher_is_better"].items():
        if not isinstance(better, bool):
            raise ValueError(f"{path}: higher_is_better.{name} must be true or false, got {better!r}.")
    protocol = {"name": "as published", "source": content["source"], **content["protocol"]}
    protocol |= {"hash": protocol_hash(protocol)}
    records = []
    for index, row in enumerate(content["rows"]):
        if not row.keys() <= ROW_KEYS or not {"tokenizer", "metrics"} <= row.keys() or not row["metrics"]:
            raise ValueError(
                f"{path}: rows[{index}] must have tokenizer and metrics, and may have generator and note; "
                f"got {', '.join(sorted(row))}."
            )
        for name, value in row["metrics"].items():
            if not isinstance(value, int | float):
                raise ValueError(f"{path}: rows[{index}].metrics.{name} must be a number, got {value!r}.")
        records.append(
            Record(
                id=f"{path.stem}-{index}",
                job=JOB,
                subject={"tokenizer": row["tokenizer"], "generator": row.get("generator"), "data": content["data"]},
                metrics={name: Estimate(float(value)) for name, value in row["metrics"].items()},
                protocol=protocol,
                artifacts={},
                config={"note": row.get("note", ""), "url": content["url"]},
                environment={},
                created=content["date"],
                schema=SCHEMA,
                higher_is_better={
                    name: better for name, better in content["higher_is_better"].items() if name in row["metrics"]
                },
                settings={},
            )
        )
    return PaperTable(content["title"], content["source"], content["url"], content["data"], protocol, records)


def published_table(table: PaperTable) -> Table:
    """A paper's table as text, without ranks."""
    generates = any(record.subject["generator"] for record in table.records)
    notes = any(record.config["note"] for record in table.records)
    labels = ["tokenizer", *(["generator"] if generates else []), *(["setting"] if notes else [])]
    rows = []
    for record in table.records:
        names = {
            "tokenizer": record.subject["tokenizer"],
            "generator": record.subject["generator"],
            "setting": record.config["note"],
        }
        values = [record.metrics.get(metric) for metric in table.metrics]
        rows.append(
            (
                [names[label] or "-" for label in labels],
                [None if value is None else Entry(f"{value.value:g}") for value in values],
            )
        )
    settings = ", ".join(
        f"{key}: {value}" for key, value in table.protocol.items() if key not in ("name", "source", "hash")
    )
    return Table(
        f"As published: {table.title} ({table.data})",
        labels,
        table.metrics,
        rows,
        [f"{table.source}, {table.url}. {settings}".strip()],
    )
