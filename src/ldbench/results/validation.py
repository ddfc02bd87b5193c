"""Reading a record that anybody may have written: every field is looked at, and a wrong one is named."""

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
LARGEST_NUMBER = 1e100  # of finite ones: their squares are numbers too
LONGEST = 200  # characters of a name
LONGEST_TEXT = 4000  # of any other text
DEEPEST = 30  # mappings and lists inside each other
WORD = re.compile(r"[a-z][a-z0-9_]{0,63}")
IDENTITY = re.compile(r"[0-9a-f]{1,64}")
FIELDS = ("id", "job", "subject", "metrics", "protocol", "artifacts", "config", "environment", "created", "schema")
SUBJECT = ("tokenizer", "generator", "data")


def read_checked(path: Path) -> Record:
    """A record from a file of anybody. Raises ValueError with the file and the path of the field that is wrong, as in `metrics.psnr.low`."""
    try:
        return checked(load(path), path.stem)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def load(path: Path) -> Any:
    """The JSON in a file, strictly: no NaN, no infinity outside of a name, no key twice."""
    if not path.is_file():  # a pipe or a device would be read for ever
        raise ValueError("it is no file.")
    size = path.stat().st_size
    if size > LARGEST:
        raise ValueError(f"the file has {size} bytes, and no record has more than {LARGEST}.")
    try:
        return json.loads(path.read_bytes(), parse_constant=reject_constant, object_pairs_hook=reject_duplicate_keys)
    except OSError as error:
        raise ValueError(f"the file cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the file is not JSON ({error}).") from error


def checked(content: Any, stem: str | None = None) -> Record:
    """The record that parsed JSON holds; `stem`: the name of its file without `.json`, which must be the record's own."""
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
    """Whether larger values are better, by the name of a metric of the record."""
    for name, better in mapping(value, "higher_is_better").items():
        if name not in metrics:
            wrong("higher_is_better", "must name metrics of the record", name)
        if not isinstance(better, bool):
            wrong(f"higher_is_better.{name}", "must be true or false", better)
    return dict(value)


def estimate(value: Any, place: str) -> Estimate:
    """A number with its interval: {value, low, high}, the last two both numbers or both null."""
    fields = mapping(value, place)
    exact(fields, ("value", "low", "high"), f"{place}.")
    low, high = (None if fields[key] is None else number(fields[key], f"{place}.{key}") for key in ("low", "high"))
    if (low is None) != (high is None):
        wrong(f"{place}.low", "and high must both be numbers or both be null", [fields["low"], fields["high"]])
    if low is not None and high is not None and low > high:
        wrong(f"{place}.low", f"must not be above high ({high})", low)
    return Estimate(number(fields["value"], f"{place}.value"), low, high)


def number(value: Any, place: str) -> float:
    """A number; infinities stand by name, as 'inf' and '-inf'."""
    if value in ("inf", "-inf"):
        return float(decode(value) or 0)
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= LARGEST_NUMBER:
        wrong(place, "must be a number, 'inf' or '-inf'", value)
    return float(value)


def mapping(value: Any, place: str) -> dict[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        wrong(place, "must be a JSON object", value)
    return value


def plain(value: Any, place: str, depth: int = 0) -> Any:
    """The same value, whose texts and keys are printable, so that they can be shown anywhere, and which is not nested without end."""
    if depth > DEEPEST:
        raise ValueError(f"{place[:80]}... lies more than {DEEPEST} deep.")
    if isinstance(value, dict):
        for key, entry in value.items():
            name_of(key, f"a key of {place}")
            plain(entry, f"{place}.{key}", depth + 1)
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            plain(entry, f"{place}[{index}]", depth + 1)
    elif isinstance(value, str) and (not value.isprintable() or len(value) > LONGEST_TEXT):
        wrong(place, f"must be printable text of at most {LONGEST_TEXT} characters", value)
    return value


def exact(fields: Mapping[str, Any], known: tuple[str, ...], place: str) -> None:
    """Raises ValueError for keys that are missing or that nobody knows."""
    for key in known:
        if key not in fields:
            raise ValueError(f"{place}{key} is missing.")
    for key in fields:
        if key not in known:
            told = key if key.isprintable() and len(key) < 40 else shown(key)
            wrong(f"{place}{told}", f"is no field of a record; known here: {', '.join(known)}", fields[key])


def name_of(value: Any, place: str) -> str:
    """A name for people: printable, of one line, not too long."""
    if not isinstance(value, str) or not value or len(value) > LONGEST or not value.isprintable():
        wrong(place, f"must be a name of 1 to {LONGEST} printable characters", value)
    return value


def matching(value: Any, pattern: re.Pattern[str], place: str) -> str:
    """A word that becomes part of a file's name."""
    if not isinstance(value, str) or not pattern.fullmatch(value):
        wrong(place, f"must match {pattern.pattern}", value)
    return value


def moment(value: Any, place: str) -> str:
    """A time as ISO 8601 writes it."""
    try:
        datetime.fromisoformat(value)
    except (TypeError, ValueError):
        wrong(place, "must be a time like 2026-01-31T12:00:00+00:00", value)
    return value


def wrong(place: str, expected: str, value: Any) -> NoReturn:
    """Raises ValueError: which field, what was expected, what was given."""
    raise ValueError(f"{place} {expected}; got {shown(value)}.")


def shown(value: Any) -> str:
    """A value in at most 60 characters of one line."""
    text = value if isinstance(value, str) and value.isprintable() and len(value) < 40 else ascii(value)
    text = repr(text) if text is value else text
    return text if len(text) <= 60 else f"{text[:57]}..."
