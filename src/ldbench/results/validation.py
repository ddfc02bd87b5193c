"""Reading records of unknown origin: every field is validated, and a wrong one is named by its key."""

import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from ldbench.core.estimate import Estimate
from ldbench.io.files import reject_constant, reject_duplicate_keys
from ldbench.results.curves import POINT
from ldbench.results.metric_names import is_count
from ldbench.results.records import BY_ROLE, OPTIONAL, READABLE, SCHEMA, Record, decode, protocol_hash

LARGEST = 4_000_000  # bytes of one record
LARGEST_NUMBER = 1e100  # of finite ones: their squares are finite too
LARGEST_PLAIN = sys.float_info.max  # of numbers in configs and protocols, whole ones too
LARGEST_COUNT = 1_000_000  # of tokenizers
LONGEST = 200  # characters of a name
LONGEST_TIME = 40  # characters of a time
LONGEST_TEXT = 4000  # of any other text
DEEPEST = 30  # mappings and lists inside each other
WORD = re.compile(r"[a-z][a-z0-9_]{0,63}")
IDENTITY = re.compile(r"[0-9a-f]{1,64}")
FIELDS = ("id", "job", "subject", "metrics", "protocol", "artifacts", "config", "environment", "created", "schema")
ROLES = ("tokenizer", "generator", "samples")  # of artifacts
SUBJECT = ("tokenizer", "generator", "data")
SAMPLES = "samples"  # in the subject of somebody's images


class InvalidRecordError(ValueError):
    """What is wrong with a record: a sentence for each wrong field, which begins with its key. As text, the first."""

    def __init__(self, faults: Sequence[str]):
        more = f" {len(faults) - 1} more of its fields are wrong." if len(faults) > 1 else ""
        super().__init__(f"{faults[0]}{more}")
        self.faults = tuple(faults)


def read_validated(path: Path) -> Record:
    """Reads and validates a record. Raises ValueError with the file and a wrong field's key, as `metrics.psnr.low`."""
    try:
        return validated(load(path), path.stem)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def find_faults(path: Path) -> Sequence[str]:
    """A sentence for each wrong field of a record, which begins with its key; none of a valid record."""
    try:
        validated(load(path), path.stem)
    except ValueError as error:
        return faults_of(error)
    return []


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

    Raises InvalidRecordError with the key of each wrong field.
    """
    fields = mapping(content, "the file")
    schema = fields.get("schema", SCHEMA)
    if type(schema) is not int or schema not in READABLE:
        known = " or ".join(map(str, READABLE))
        wrong("schema", f"must be {known}, which is what this version of ldbench reads", schema)
    needed = FIELDS if schema == 1 else (*FIELDS, *BY_ROLE)
    faults = key_faults({key: value for key, value in fields.items() if key not in {*OPTIONAL} - {*needed}}, needed, "")
    parts: dict[str, Any] = {}
    for key, read in READERS.items():
        if key in fields:
            try:
                parts[key] = read(fields[key])
            except ValueError as error:
                faults += faults_of(error)
    for validate in (validate_file_name(stem), validate_directions, *([] if schema == 1 else [validate_roles])):
        try:
            validate(parts)
        except ValueError as error:
            faults += faults_of(error)
    if faults:
        raise InvalidRecordError(faults)
    return Record(**parts)


def faults_of(error: ValueError) -> Sequence[str]:
    """The sentences of an error."""
    return error.faults if isinstance(error, InvalidRecordError) else [str(error)]


def validate_file_name(stem: str | None) -> Callable[[Mapping[str, Any]], None]:
    """What raises ValueError unless a record's job and id are those of its file's name."""

    def validate(parts: Mapping[str, Any]) -> None:
        if stem is not None and {"job", "id"} <= parts.keys() and stem != (name := f"{parts['job']}-{parts['id']}"):
            wrong("id", f"must be that of the file's name, <job>-<id>.json: {name}.json", stem)

    return validate


def validate_directions(parts: Mapping[str, Any]) -> None:
    """Raises ValueError unless all directions are of metrics of the record."""
    if {"metrics", "higher_is_better"} <= parts.keys():
        for name in parts["higher_is_better"]:
            if name not in parts["metrics"]:
                wrong("higher_is_better", "must name metrics of the record", name)


def validate_roles(parts: Mapping[str, Any]) -> None:
    """Raises ValueError unless a record says all of each of its models; one of many models says nothing of any."""
    if "artifacts" not in parts:
        return
    roles = parts["artifacts"].keys() & {*ROLES}
    for key in BY_ROLE:
        if key in parts and parts[key].keys() != roles:
            wrong(key, f"must have the keys of artifacts, {', '.join(sorted(roles)) or 'none'}", sorted(parts[key]))


def subject_of(value: Any) -> dict[str, str | None]:
    """The names of what was measured."""
    names = mapping(value, "subject")
    exact({key: value for key, value in names.items() if key != SAMPLES}, SUBJECT, "subject.")
    return {key: None if name is None else name_of(name, f"subject.{key}") for key, name in names.items()}


def protocol_of(value: Any) -> dict[str, Any]:
    """A protocol with its hash."""
    protocol = mapping(value, "protocol")
    plain(protocol, "protocol")
    name_of(protocol.get("name"), "protocol.name")
    if (expected := protocol_hash(protocol)) != protocol.get("hash"):
        wrong("protocol.hash", f"must be the hash of the protocol's fields, {expected}", protocol.get("hash"))
    return protocol


def metrics_of(value: Any) -> dict[str, Estimate]:
    """Numbers by name. Raises InvalidRecordError with a sentence for each that is wrong."""
    found: dict[str, Estimate] = {}
    faults: list[str] = []
    for name, numbers in mapping(value, "metrics").items():
        try:
            found[metric_name(name)] = estimate(numbers, f"metrics.{name}")
            if is_count(name):
                validate_count(found[name].value, f"metrics.{name}.value")
        except ValueError as error:
            faults += faults_of(error)
    if faults:
        raise InvalidRecordError(faults)
    return found


def metric_name(value: Any) -> str:
    """The name of a metric; where it is a point of a curve, its position is a number that can be drawn."""
    name = name_of(value, "metrics")
    point = POINT.fullmatch(name)
    if point is not None and abs(float(point["x"])) > LARGEST_NUMBER:
        wrong("metrics", f"must have points at numbers of at most {LARGEST_NUMBER:g} in size", name)
    return name


def validate_count(value: float, key: str) -> None:
    """Raises InvalidRecordError unless a number is a count, such as that of tokenizers."""
    if not 0 <= value <= LARGEST_COUNT or value != int(value):
        wrong(key, f"must be a whole number of 0 to {LARGEST_COUNT}", value)


def config_of(value: Any) -> dict[str, Any]:
    """A config. The settings of its job, if it has any, are a JSON object."""
    config = mapping(value, "config")
    plain(config, "config")
    if config.get("job") is not None:
        mapping(config["job"], "config.job")
    return config


def artifacts_of(value: Any) -> dict[str, str]:
    """Names of artifacts by role."""
    return {
        name_of(key, "artifacts"): name_of(name, f"artifacts.{key}")
        for key, name in mapping(value, "artifacts").items()
    }


def identities(value: Any, field: str) -> dict[str, str]:
    """Digests by role."""
    return {
        role_of(key, field): matching(digest, IDENTITY, f"{field}.{key}")
        for key, digest in mapping(value, field).items()
    }


def components_of(value: Any) -> dict[str, str]:
    """Names of components by role."""
    return {
        role_of(key, "components"): name_of(name, f"components.{key}")
        for key, name in mapping(value, "components").items()
    }


def seeds_of(value: Any) -> dict[str, int | None]:
    """The seeds of models by role; null for released weights."""
    for key, seed in mapping(value, "seeds").items():
        role_of(key, "seeds")
        if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool)):
            wrong(f"seeds.{key}", "must be a whole number or null", seed)
        plain(seed, f"seeds.{key}")
    return dict(value)


def role_of(value: str, key: str) -> str:
    """The role of an artifact."""
    if value not in ROLES:
        wrong(key, f"may have the keys {', '.join(ROLES)}", value)
    return value


def directions(value: Any) -> dict[str, bool]:
    """Whether larger values are better, by metric."""
    for name, better in mapping(value, "higher_is_better").items():
        if not isinstance(better, bool):
            wrong(f"higher_is_better.{shown_key(name)}", "must be true or false", better)
    return dict(value)


def estimate(value: Any, key: str) -> Estimate:
    """A number with its interval, {value, low, high}, the last two both numbers or both null, and where it is known its
    error, {standard_error, freedom}.
    """
    fields = mapping(value, key)
    exact(
        {name: entry for name, entry in fields.items() if name not in ("standard_error", "freedom")},
        ("value", "low", "high"),
        f"{key}.",
    )
    low, high = (None if fields[end] is None else number(fields[end], f"{key}.{end}") for end in ("low", "high"))
    if (low is None) != (high is None):
        wrong(f"{key}.low", "and high must both be numbers or both be null", [fields["low"], fields["high"]])
    if low is not None and high is not None and low > high:
        wrong(f"{key}.low", f"must not be above high ({high})", low)
    error, freedom = (
        None if fields.get(name) is None else number(fields[name], f"{key}.{name}")
        for name in ("standard_error", "freedom")
    )
    if error is not None and not 0 <= error < math.inf:
        wrong(f"{key}.standard_error", "must be a finite number of at least 0", error)
    if freedom is not None and freedom < 1:
        wrong(f"{key}.freedom", "must be at least 1", freedom)
    return Estimate(number(fields["value"], f"{key}.value"), low, high, error, freedom)


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
    """The value itself, if its text and keys are printable, its numbers finite, and it is not nested too deeply."""
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
    elif isinstance(value, int | float) and not abs(value) <= LARGEST_PLAIN:
        wrong(key, f"must be a finite number of at most {LARGEST_PLAIN:.2g} in size", value)
    return value


def exact(fields: Mapping[str, Any], known: tuple[str, ...], prefix: str) -> None:
    """Raises InvalidRecordError for missing and for unknown keys."""
    if faults := key_faults(fields, known, prefix):
        raise InvalidRecordError(faults)


def key_faults(fields: Mapping[str, Any], known: tuple[str, ...], prefix: str) -> list[str]:
    """A sentence for each missing and each unknown key."""
    missing = [f"{prefix}{key} is missing." for key in known if key not in fields]
    expected = f"is no field of a record; known here: {', '.join(known)}"
    return missing + [
        f"{prefix}{shown_key(key)} {expected}; got {shown(value)}." for key, value in fields.items() if key not in known
    ]


def shown_key(key: str) -> str:
    """A key of unknown origin in one line."""
    return key if key.isprintable() and len(key) < 40 else shown(key)


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
        shown_whole = value.isprintable() and len(value) <= LONGEST_TIME  # any sign may stand between date and time
    except (TypeError, ValueError):
        shown_whole = False
    if not shown_whole:
        wrong(key, "must be a time like 2026-01-31T12:00:00+00:00", value)
    return value


def wrong(key: str, expected: str, value: Any) -> NoReturn:
    """Raises InvalidRecordError with the field, what was expected and what was given."""
    raise InvalidRecordError([f"{key} {expected}; got {shown(value)}."])


def shown(value: Any) -> str:
    """A value in at most 60 characters of one line."""
    text = value if isinstance(value, str) and value.isprintable() and len(value) < 40 else ascii(value)
    text = repr(text) if text is value else text
    return text if len(text) <= 60 else f"{text[:57]}..."


READERS: Mapping[str, Callable[[Any], Any]] = {  # of each field of a record, alone
    "id": lambda value: matching(value, IDENTITY, "id"),
    "job": lambda value: matching(value, WORD, "job"),
    "subject": subject_of,
    "metrics": metrics_of,
    "protocol": protocol_of,
    "artifacts": artifacts_of,
    "config": config_of,
    "environment": lambda value: plain(mapping(value, "environment"), "environment"),
    "created": lambda value: moment(value, "created"),
    "schema": lambda value: value,
    "models": lambda value: identities(value, "models"),
    "seeds": seeds_of,
    "weights": lambda value: identities(value, "weights"),
    "components": components_of,
    "higher_is_better": directions,
    "settings": lambda value: plain(mapping(value, "settings"), "settings"),
}
