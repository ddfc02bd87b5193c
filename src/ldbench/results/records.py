"""Records: one measurement each, one JSON file each, written once. The folder of records is the results store."""

import hashlib
import json
import math
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ldbench.core.estimate import Estimate
from ldbench.io.files import atomic_write

SCHEMA = 2
READABLE = (1, SCHEMA)


@dataclass(frozen=True)
class Record:
    """One measurement: of what, how, and with which numbers. `id` hashes everything that the numbers depend on."""

    id: str
    job: str
    # names for people: tokenizer, generator, data; samples where it is of somebody's images
    subject: Mapping[str, str | None]
    metrics: Mapping[str, Estimate]
    protocol: Mapping[str, Any]  # with its hash
    artifacts: Mapping[str, str]  # role -> folder name
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    created: str  # UTC, ISO 8601
    schema: int = SCHEMA
    # by role: identity of the model, without seeds; seed; identity of the artifact, with its weights; component, which
    # is the architecture. None: of schema 1, which is not pooled over seeds
    models: Mapping[str, str] | None = None
    seeds: Mapping[str, int | None] | None = None
    weights: Mapping[str, str] | None = None
    components: Mapping[str, str] | None = None
    higher_is_better: Mapping[str, bool] | None = (
        None  # of each ranked figure; None: written before there was this field
    )
    settings: Mapping[str, Any] | None = None  # of the job, as far as its numbers depend on them; None: likewise


def measured_name(record: Record) -> str | None:
    """The name of what a record measured: somebody's samples, or the tokenizer."""
    return record.subject.get("samples") or record.subject["tokenizer"]


BOUNDS = ("value", "low", "high")  # that every number of a record's file has
BY_ROLE = ("models", "seeds", "weights", "components")  # of schema 2
OPTIONAL = (*BY_ROLE, "higher_is_better", "settings")  # fields that enter no hash and no id


def merge_directions(records: Iterable[Record]) -> dict[str, bool]:
    """Whether larger values are better, of each figure for which the records that hold it agree."""
    found: dict[str, set[bool]] = {}
    for record in records:
        for name, better in (record.higher_is_better or {}).items():
            found.setdefault(name, set()).add(better)
    return {name: directions.pop() for name, directions in found.items() if len(directions) == 1}


def record_id(*, job: str, settings: Any, artifacts: Mapping[str, str], data: str, protocol: str, revision: int) -> str:
    """The id of a measurement, the same for a rerun.

    `artifacts`: role -> digest; `data`: fingerprint; `protocol`: hash.
    """
    content = {
        "job": job,
        "settings": settings,
        "artifacts": dict(artifacts),
        "data": data,
        "protocol": protocol,
        "revision": revision,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def protocol_hash(fields: Mapping[str, Any]) -> str:
    """The hash of a protocol's fields, without its name, which is a label, and its hash."""
    content = {key: value for key, value in fields.items() if key not in ("name", "hash")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def path_of(folder: Path, job: str, identity: str) -> Path:
    """The path of a record; its figures are in the folder of the same name without `.json`."""
    return folder / f"{job}-{identity}.json"


def write(record: Record, folder: Path) -> Path:
    """Writes a record atomically and returns its path."""
    path = path_of(folder, record.job, record.id)
    content = {key: value for key, value in asdict(record).items() if key not in OPTIONAL or value is not None}
    content["metrics"] = {
        name: {key: encode(value) for key, value in numbers.items() if key in BOUNDS or value is not None}
        for name, numbers in content["metrics"].items()
    }
    with atomic_write(path) as scratch:
        scratch.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return path


def read(path: Path) -> Record:
    """Reads a record. Raises ValueError, naming the file, if it is not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        schema = content["schema"]
        if schema in READABLE:
            metrics = content.pop("metrics").items()
            estimates = {name: read_estimate(numbers) for name, numbers in metrics}
            return Record(**content, metrics=estimates)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a record of ldbench ({error}). Move it out of the records folder.") from error
    raise ValueError(
        f"{path} has schema {schema}, and this version of ldbench reads {' and '.join(map(str, READABLE))}."
    )


def read_estimate(numbers: Mapping[str, Any]) -> Estimate:
    """An estimate from its JSON."""
    keywords: dict[str, Any] = {key: decode(value) for key, value in numbers.items()}
    return Estimate(**keywords)


def encode(value: float | None) -> float | str | None:
    """A number as JSON holds it: infinities by name."""
    return str(value) if value is not None and math.isinf(value) else value


def decode(value: float | str | None) -> float | None:
    """The number that `encode` wrote."""
    return float(value) if isinstance(value, str) else value


def environment(plugins: Iterable[str] = ()) -> dict[str, Any]:
    """Versions and machine, without names of hosts or people; `plugins`: the packages of plug-ins that were used."""
    packages = ("ldbench", "torch", "torchvision", "lightning", "torchmetrics", "numpy", "scikit-learn", *plugins)
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()}-{platform.machine()}",
        "packages": {package: version(package) for package in packages},
    }


def now() -> str:
    """The time in UTC, as records write it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
