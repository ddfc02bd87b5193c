"""Reading records of unknown origin: every field is validated, and a wrong one is named by its key."""

import json
import math
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from ldbench.core.estimate import Estimate
from ldbench.io.files import reject_constant, reject_duplicate_keys
from ldbench.results.records import BY_ROLE, OPTIONAL, READABLE, Record, decode, protocol_hash

LARGEST = 4_000_000  # bytes of one record
LARGEST_NUMBER = 1e100  # of finite ones: their squares are finite too
LONGEST = 200  # characters of a name
LONGEST_TEXT = 4000  # of any other text
DEEPEST = 30  # mappings and lists inside each other
WORD = re.compile(r"[a-z][a-z0-9_]{0,63}")
IDENTITY = re.compile(r"[0-9a-f]{1,64}")
FIELDS = ("id", "job", "subject", "metrics", "protocol", "artifacts", "config", "environment", "created", "schema")
ROLES = ("tokenizer", "generator", "samples")  # of artifacts
SUBJECT = ("tokenizer", "generator", "data")
SAMPLES = "samples"  # in the subject of somebody's images


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
    if "schema" in fields and fields["schema"] not in READABLE:
        known = " or ".join(map(str, READABLE))
        wrong("schema", f"must be {known}, which is what this version of ldbench reads", fields["schema"])
    needed = FIELDS if fields.get("schema") == 1 else (*FIELDS, *BY_ROLE)
    exact({key: value for key, value in fields.items() if key in needed or key not in OPTIONAL}, needed, "")
    job, identity = matching(fields["job"], WORD, "job"), matching(fields["id"], IDENTITY, "id")
    if stem is not None and stem != f"{job}-{identity}":
        wrong("id", f"must be that of the file's name, <job>-<id>.json: {job}-{identity}.json", stem)
    subject = mapping(fields["subject"], "subject")
    exact({key: value for key, value in subject.items() if key != SAMPLES}, SUBJECT, "subject.")
    protocol = mapping(fields["protocol"], "protocol")
    plain(protocol, "protocol")
    name_of(protocol.get("name"), "protocol.name")
    if (expected := protocol_hash(protocol)) != protocol.get("hash"):
        wrong("protocol.hash", f"must be the hash of the protocol's fields, {expected}", protocol.get("hash"))
    metrics = {
        name_of(name, "metrics"): estimate(value, f"metrics.{name}")
        for name, value in mapping(fields["metrics"], "metrics").items()
    }
    if fields["schema"] != 1:
        validate_roles(fields)
    return Record(
        id=identity,
        job=job,
        subject={key: None if name is None else name_of(name, f"subject.{key}") for key, name in subject.items()},
        metrics=metrics,
        protocol=protocol,
        artifacts={
            name_of(key, "artifacts"): name_of(value, f"artifacts.{key}")
            for key, value in mapping(fields["artifacts"], "artifacts").items()
        },
        config=plain(mapping(fields["config"], "config"), "config"),
        environment=plain(mapping(fields["environment"], "environment"), "environment"),
        created=moment(fields["created"], "created"),
        schema=fields["schema"],
        models=identities(fields["models"], "models") if "models" in fields else None,
        seeds=seeds_of(fields["seeds"]) if "seeds" in fields else None,
        weights=identities(fields["weights"], "weights") if "weights" in fields else None,
        components=components_of(fields["components"]) if "components" in fields else None,
        higher_is_better=directions(fields["higher_is_better"], metrics) if "higher_is_better" in fields else None,
        settings=plain(mapping(fields["settings"], "settings"), "settings") if "settings" in fields else None,
    )


def validate_roles(fields: Mapping[str, Any]) -> None:
    """Raises ValueError unless a record says all of each of its models; one of many models says nothing of any."""
    roles = mapping(fields["artifacts"], "artifacts").keys() & {*ROLES}
    for key in BY_ROLE:
        if mapping(fields[key], key).keys() & {*ROLES} != roles:
            wrong(key, f"must have the keys of artifacts, {', '.join(sorted(roles)) or 'none'}", sorted(fields[key]))


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
        if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool)):
            wrong(f"seeds.{key}", "must be a whole number or null", seed)
    return {role_of(key, "seeds"): seed for key, seed in value.items()}


def role_of(value: str, key: str) -> str:
    """The role of an artifact."""
    if value not in ROLES:
        wrong(key, f"may have the keys {', '.join(ROLES)}", value)
    return value


def directions(value: Any, metrics: Mapping[str, Estimate]) -> dict[str, bool]:
    """Whether larger values are better, by metric of the record."""
    for name, better in mapping(value, "higher_is_better").items():
        if name not in metrics:
            wrong("higher_is_better", "must name metrics of the record", name)
        if not isinstance(better, bool):
            wrong(f"higher_is_better.{name}", "must be true or false", better)
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
