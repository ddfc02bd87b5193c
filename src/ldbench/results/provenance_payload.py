"""Where the numbers of the page come from: their records, which the page reads when the first number is asked for.

Ten thousand records share most of their configs, so that each part of a config or environment is held once.
"""

import json
from collections.abc import Sequence
from typing import Any

from ldbench.core.estimate import Estimate
from ldbench.results.comparison import text
from ldbench.results.leaderboards import Leaderboard
from ldbench.results.models import flat, seeds_of
from ldbench.results.numbers import number
from ldbench.results.records import Record

Plain = dict[str, Any]


def provenance_of(boards: Sequence[Leaderboard]) -> Plain:
    """The records of all numbers, the parts that they share, and each record's number.

    `records`: `environment` and the values of `config` are indices of `parts`; `estimates`: for each leaderboard and
    row, metric -> [index of the record, value, interval].
    """
    parts = Parts()
    records = {record.id: record for board in boards for row in board.rows for record in row.records}
    indices = {identity: index for index, identity in enumerate(records)}
    return {
        "records": [describe_record(record, parts) for record in records.values()],
        "parts": parts.values,
        "estimates": [
            [
                {
                    metric: [
                        [indices[identity], number(estimate.value), interval(estimate)]
                        for identity, estimate in cell.estimates.items()
                    ]
                    for metric, cell in row.cells.items()
                }
                for row in board.rows
            ]
            for board in boards
        ],
    }


class Parts:
    """Different values, each held once."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._indices: dict[str, int] = {}

    def index_of(self, value: Any) -> int:
        """The index of a value in `values`, to which a new one is added."""
        key = json.dumps(value)
        if key not in self._indices:
            self._indices[key] = len(self.values)
            self.values.append(value)
        return self._indices[key]


def describe_record(record: Record, parts: Parts) -> Plain:
    """A record, without its numbers."""
    return {
        **{"name": f"{record.job}-{record.id}", "created": record.created, "seeds": seeds_of(record)},
        "artifacts": dict(record.artifacts),
        "environment": parts.index_of([[key, text(value)] for key, value in flat(record.environment).items()]),
        "config": {key: parts.index_of(value) for key, value in record.config.items()},
    }


def interval(estimate: Estimate) -> str | None:
    """A 95 % interval as text."""
    return (
        None if estimate.low is None or estimate.high is None else f"{number(estimate.low)} to {number(estimate.high)}"
    )
