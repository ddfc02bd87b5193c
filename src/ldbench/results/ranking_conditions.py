"""Conditions: what must be equal for two numbers to be ranked together."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ldbench.results.comparison import differences
from ldbench.results.records import SCHEMA, Record


@dataclass(frozen=True)
class Conditions:
    """The job, the data, the protocol and the job's settings under which something was measured."""

    job: str
    data: str
    protocol: Mapping[str, Any]
    settings: Mapping[str, Any]
    schema: int = SCHEMA  # of the records: those of another were computed by other rules

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What is equal for numbers that can be ranked together."""
        return (
            self.data,
            self.job,
            f"{self.protocol['hash']}{self.generation}",
            json.dumps(self.settings, sort_keys=True),
        )

    @property
    def name(self) -> str:
        """The display name: the protocol's name, the start of its hash, and settings."""
        settings = ", ".join(f"{key}={json.dumps(value)}" for key, value in self.settings.items())
        return f"{self.short_name} ({settings})" if settings else self.short_name

    @property
    def short_name(self) -> str:
        """The same without settings."""
        return f"{self.protocol['name']} {self.protocol['hash'][:8]}{self.generation}"

    @property
    def generation(self) -> str:
        """What is said of records of an older schema."""
        return "" if self.schema == SCHEMA else f" (records of schema {self.schema})"


def conditions_of(record: Record) -> Conditions:
    """The conditions of a record. For a job that is not known here, all of its settings count."""
    settings = job_config(record) if record.settings is None else record.settings
    data = record.subject["data"] or ""
    return Conditions(record.job, data, record.protocol, dict(sorted(settings.items())), record.schema)


def job_config(record: Record) -> dict[str, Any]:
    """The settings of its job in the config of a record."""
    jobs = record.config.get("jobs")
    node = record.config.get("job") or (jobs.get(record.job) if isinstance(jobs, Mapping) else None)
    return {key: value for key, value in node.items() if key != "component"} if isinstance(node, Mapping) else {}


def validate_same_conditions(records: Sequence[Record]) -> None:
    """Raises ValueError, with the fields that differ, unless all records have the same conditions."""
    conditions = [conditions_of(record) for record in records]
    first = conditions[0]
    for record, other in zip(records, conditions, strict=True):
        if other.key != first.key:
            sides = (
                {"job": c.job, "data": c.data, "protocol": c.protocol, "settings": c.settings, "schema": c.schema}
                for c in (first, other)
            )
            differing = "; ".join(f"{key}: {a} and {b}" for key, a, b in differences(*sides) if key != "protocol.hash")
            raise ValueError(
                f"{records[0].job}-{records[0].id} and {record.job}-{record.id} were not measured under the same "
                f"conditions, so they are not ranked together. They differ in {differing}."
            )
