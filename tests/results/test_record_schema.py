"""The page of the schema is that of the code: every field is on it, and its types are those that are accepted."""

import copy
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from ldbench.core.estimate import Estimate
from ldbench.results import store, validation
from ldbench.results.records import BY_ROLE, OPTIONAL
from ldbench.results.validation import InvalidRecordError, validated

PAGE = (Path(__file__).parents[2] / "docs" / "record-schema.md").read_text()
ROWS = re.findall(r"^\| `([\w.]+)` \| (.+?) \| (yes|no) \| (.+) \|$", PAGE, flags=re.MULTILINE)
NAMES = {"METRIC": "psnr", "ROLE": "tokenizer"}
SAMPLES: dict[str, Any] = {  # a value of each kind of JSON
    "text": "A text",
    "number": 1.5,
    "whole number": 3,
    "true or false": True,
    "object": {"a": 1},
    "list": ["a"],
    "null": None,
}
ALSO = {
    "number": {"whole number"},
    "name": {"text"},
}  # what is of a type too; hexadecimal, words and times are not text


def example() -> dict[str, Any]:
    """The record of the page, with every field."""
    record = json.loads(re.search(r"^```json\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)[1])
    record["subject"]["samples"] = None
    return record


def changed(place: str, value: Any) -> dict[str, Any]:
    """The example with another value at a place; `...`: without it."""
    record = copy.deepcopy(example())
    *parents, last = [NAMES.get(part, part) for part in place.split(".")]
    node = record
    for key in parents:
        node = node[key]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    if last in ("low", "high") and value is None:  # both or none
        node.update(low=None, high=None)
    return record


def test_every_field_is_on_the_page_and_no_other() -> None:
    places = [place for place, *_ in ROWS]
    assert {place for place in places if "." not in place} == {*validation.FIELDS, *OPTIONAL}
    inner = {place.rpartition(".")[2] for place in places if place.startswith("metrics.METRIC.")}
    assert inner == {field.name for field in fields(Estimate)}
    inner = {place.rpartition(".")[2] for place in places if place.startswith("subject.")}
    assert inner == {*validation.SUBJECT, validation.SAMPLES}
    assert {place for place in places if place.endswith(".ROLE")} == {f"{key}.ROLE" for key in ("artifacts", *BY_ROLE)}
    assert all(f"`{role}`" in PAGE for role in validation.ROLES)


def test_the_example_of_the_page_is_valid() -> None:
    assert validated(example(), "reconstruct-5e3c1d").subject["tokenizer"] == "vmae"


@pytest.mark.parametrize(("place", "kinds"), [(place, kinds) for place, kinds, *_ in ROWS])
def test_a_field_takes_the_types_of_the_page_and_no_other(place: str, kinds: str) -> None:
    listed = set(kinds.split(" or ")) if kinds != "true or false" else {kinds}
    accepted = listed | {kind for name in listed for kind in ALSO.get(name, ())}
    named = ".".join(NAMES.get(part, part) for part in place.split("."))
    for kind, value in SAMPLES.items():
        if kind not in accepted:
            with pytest.raises(InvalidRecordError) as refused:
                validated(changed(place, value))
            assert any(fault.startswith(f"{named} ") for fault in refused.value.faults), (place, kind)
    if "null" in listed:
        validated(changed(place, None))


@pytest.mark.parametrize(("place", "needed"), [(place, needed) for place, _, needed, _ in ROWS])
def test_a_field_is_needed_where_the_page_says_so(place: str, needed: str) -> None:
    record = changed(place, ...)
    for key in {"metrics.METRIC": ["higher_is_better"], "artifacts.ROLE": BY_ROLE}.get(place, []):  # name it too
        record[key] = {}
    if needed == "no":
        validated(record)
        return
    with pytest.raises(InvalidRecordError) as refused:
        validated(record)
    named = place if "ROLE" not in place else place.partition(".")[0]
    assert any(fault.startswith(named.replace("METRIC", "psnr")) for fault in refused.value.faults)


def test_the_limits_of_the_page_are_those_of_the_code() -> None:
    for text, limit in (
        ("1 to 200 printable", validation.LONGEST),
        ("at most 4000", validation.LONGEST_TEXT),
        ("nest at most 30 deep", validation.DEEPEST),
        ("at most 4 000 000 bytes", validation.LARGEST),
        ("at most 8 000 000 bytes", store.LARGEST),
    ):
        assert text in PAGE
        assert str(limit) in text.replace(" ", "")
    assert f"at most {validation.LARGEST_NUMBER:g}".replace("+", "") in PAGE
