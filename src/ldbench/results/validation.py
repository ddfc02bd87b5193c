"""Reading records of unknown origin: every field is validated, and a wrong one is named by its key."""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from ldbench.core.estimate import Estimate
from ldbench.io.files import reject_constant, reject_duplicate_keys
from ldbench.results.records import OPTIONAL, SCHEMA, Record, decode, protocol_hash

LARGEST = 4_000_000  # bytes of one record
LARGEST_NUMBER = 1e100  # of finite ones: their squares are finite too
LONGEST = 200  # characters of a name
LONGEST_TEXT = 4000  # of any other text
DEEPEST = 30  # mappings and lists inside each other
WORD = re.compile(r"[a-z][a-z0-9_]{0,63}")
IDENTITY = re.compile(r"[0-9a-f]{1,64}")
FIELDS = ("id", "job", "subject", "metrics", "protocol", "artifacts", "config", "environment", "created", "schema")
SUBJECT = ("tokenizer", "generator", "data")


def read_validated(path: Path) -> Record:
    """Reads and validates a record. Raises ValueError with the file and a wrong field's key, as `metrics.psnr.low`."""
    try:
        return validated(load(path), path.stem)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def load(path: Path) -> Any:
    """The JSON in a file, strictly: no NaN, no infinity except as text, no duplicate key."""
    if not path.is_file():  # a pipe or a device would be read forever
        raise ValueError("it is not a file.")
    size = path.stat().st_size
    if size > LARGEST:
        raise ValueError(f"the file has {size} bytes, and a record has at most {LARGEST}.")
    try:
        return json.loads(path.read_bytes(), parse_constant=reject_constant, object_pairs_hook=reject_duplicate_keys)
    except OSError as error:
        raise ValueError(f"the file cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the file is not JSON ({error}).") from error


def validated(content: Any, stem: str | None = None) -> Record:
    """The record in parsed JSON. `stem`: the name of its file without `.json`, which must match job and id.

    Raises ValueError with the key of a wrong field.
    """
    fields = mapping(content, "the file")
    if "schema" in fields and fields["schema"] != SCHEMA:
        wrong("schema", f"must be {SCHEMA}, which is what this version of ldbench reads", fields["schema"])
    exact({key: value for key, value in fields.items() if key not in OPTIONAL}, FIELDS, "")
    job, identity = matching(fields["job"], WORD, "job"), matching(fields["id"], IDENTITY, "id")
    if stem is not None and stem != f"{job}-{identity}":
        wrong("id", f"must be that of the file's name, <job>-<id>.json: {job}-{identity}.json", stem)
    subject = mapping(fields["subject"], "subject")
    exact(subject, SUBJECT, "subject.")
    protocol = mapping(fields["protocol"], "protocol")
    plain(protocol, "protocol")
    name_of(protocol.get("name"), "protocol.name")
    if (expected := protocol_hash(protocol)) != protocol.get("hash"):
        wrong("protocol.hash", f"must be the hash of the protocol's fields, {expected}", protocol.get("hash"))
    metrics = {
        name_of(name, "metrics"): estimate(value, f"metrics.{name}")
        for name, value in mapping(fields["metrics"], "metrics").items()
    }
    return Record(
        id=identity,
        job=job,
        subject={key: None if subject[key] is None else name_of(subject[key], f"subject.{key}") for key in SUBJECT},
        metrics=metrics,
        protocol=protocol,
        artifacts={
            name_of(key, "artifacts"): name_of(value, f"artifacts.{key}")
            for key, value in mapping(fields["artifacts"], "artifacts").items()
        },
        config=plain(mapping(fields["config"], "config"), "config"),
        environment=plain(mapping(fields["environment"], "environment"), "environment"),
        created=moment(fields["created"], "created"),
        higher_is_better=directions(fields["higher_is_better"], metrics) if "higher_is_better" in fields else None,
        settings=plain(mapping(fields["settings"], "settings"), "settings") if "settings" in fields else None,
    )


def directions(value: Any, metrics: Mapping[str, Estimate]) -> dict[str, bool]:
    """Whether larger values are better, by metric of the record."""
    for name, better in mapping(value, "higher_is_better").items():
        if name not in metrics:
            wrong("higher_is_better", "must name metrics of the record", name)
        if not isinstance(better, bool):
            wrong(f"higher_is_better.{name}", "must be true or false", better)
    return dict(value)


def estimate(value: Any, key: str) -> Estimate:
    """A number with its interval: {value, low, high}, the last two both numbers or both null."""
    fields = mapping(value, key)
    exact(fields, ("value", "low", "high"), f"{key}.")
    low, high = (None if fields[end] is None else number(fields[end], f"{key}.{end}") for end in ("low", "high"))
    if (low is None) != (high is None):
        wrong(f"{key}.low", "and high must both be numbers or both be null", [fields["low"], fields["high"]])
    if low is not None and high is not None and low > high:
        wrong(f"{key}.low", f"must not be above high ({high})", low)
    return Estimate(number(fields["value"], f"{key}.value"), low, high)


def number(value: Any, key: str) -> float:
    """A number; infinities are written 'inf' and '-inf'."""
    if value in ("inf", "-inf"):
        return float(decode(value) or 0)
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= LARGEST_NUMBER:
        wrong(key, "must be a number, 'inf' or '-inf'", value)
    return float(value)


def mapping(value: Any, key: str) -> dict[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        wrong(key, "must be a JSON object", value)
    return value


def plain(value: Any, key: str, depth: int = 0) -> Any:
    """The value itself, if all text and keys in it are printable and it is not nested too deeply."""
    if depth > DEEPEST:
        raise ValueError(f"{key[:80]}... is nested more than {DEEPEST} levels deep.")
    if isinstance(value, dict):
        for name, entry in value.items():
            name_of(name, f"a key of {key}")
            plain(entry, f"{key}.{name}", depth + 1)
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            plain(entry, f"{key}[{index}]", depth + 1)
    elif isinstance(value, str) and (not value.isprintable() or len(value) > LONGEST_TEXT):
        wrong(key, f"must be printable text of at most {LONGEST_TEXT} characters", value)
    return value


def exact(fields: Mapping[str, Any], known: tuple[str, ...], prefix: str) -> None:
    """Raises ValueError for missing and for unknown keys."""
    for key in known:
        if key not in fields:
            raise ValueError(f"{prefix}{key} is missing.")
    for key in fields:
        if key not in known:
            name = key if key.isprintable() and len(key) < 40 else shown(key)
            wrong(f"{prefix}{name}", f"is no field of a record; known here: {', '.join(known)}", fields[key])


def name_of(value: Any, key: str) -> str:
    """A name to show: printable, one line, not too long."""
    if not isinstance(value, str) or not value or len(value) > LONGEST or not value.isprintable():
        wrong(key, f"must be a name of 1 to {LONGEST} printable characters", value)
    return value


def matching(value: Any, pattern: re.Pattern[str], key: str) -> str:
    """Text that becomes part of a file name."""
    if not isinstance(value, str) or not pattern.fullmatch(value):
        wrong(key, f"must match {pattern.pattern}", value)
    return value


def moment(value: Any, key: str) -> str:
    """A time in ISO 8601."""
    try:
        datetime.fromisoformat(value)
    except (TypeError, ValueError):
        wrong(key, "must be a time like 2026-01-31T12:00:00+00:00", value)
    return value


def wrong(key: str, expected: str, value: Any) -> NoReturn:
    """Raises ValueError with the field, what was expected and what was given."""
    raise ValueError(f"{key} {expected}; got {shown(value)}.")


def shown(value: Any) -> str:
    """A value in at most 60 characters of one line."""
    text = value if isinstance(value, str) and value.isprintable() and len(value) < 40 else ascii(value)
    text = repr(text) if text is value else text
    return text if len(text) <= 60 else f"{text[:57]}..."
