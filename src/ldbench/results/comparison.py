"""Two records side by side: the fields in which they differ."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ldbench.results.models import flat
from ldbench.results.records import Record

ABSENT = "-"


def compare(a: Record, b: Record) -> list[tuple[str, str, str]]:
    """The fields that differ, in the order of a record: dotted key, value of `a`, value of `b`."""
    return differences(fields_of(a), fields_of(b))


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The leaves of nested mappings that differ; a leaf that only one has is `-` in the other."""
    left, right = ({key: text(value) for key, value in flat(side).items()} for side in (a, b))
    keys = dict.fromkeys([*left, *right])
    return [
        (key, left.get(key, ABSENT), right.get(key, ABSENT))
        for key in keys
        if left.get(key, ABSENT) != right.get(key, ABSENT)
    ]


def fields_of(record: Record) -> dict[str, Any]:
    """A record as nested mappings; metrics are their values alone."""
    return {
        **{"job": record.job, "subject": record.subject, "protocol": record.protocol, "artifacts": record.artifacts},
        **{"config": record.config, "environment": record.environment, "created": record.created},
        "metrics": {name: estimate.value for name, estimate in record.metrics.items()},
    }


def text(value: Any) -> str:
    """A leaf in one line."""
    return value if isinstance(value, str) else json.dumps(value)


def find_record(records: Sequence[Record], name: object) -> Record:
    """The record with an id, a prefix of an id, or a file name. Raises ValueError unless there is exactly one."""
    if not isinstance(name, str):
        raise ValueError(
            f"{name} was read as a number, which names no record. Prefix it with the job, as in reconstruct-6213b72e."
        )
    wanted = name.rpartition("/")[2].removesuffix(".json")
    matches = [
        record
        for record in records
        if wanted and (record.id.startswith(wanted) or f"{record.job}-{record.id}".startswith(wanted))
    ]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise ValueError(
            f"There is no record {name!r} among {len(records)}. Name one by its id, a prefix of its id, or its file."
        )
    raise ValueError(
        f"{name!r} is a prefix of {len(matches)} records: {', '.join(f'{r.job}-{r.id}' for r in matches[:5])}. "
        "Give a longer one."
    )
