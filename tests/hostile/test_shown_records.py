"""Records with odd values: whatever the validator accepts, every output of the leaderboard shows."""

import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from tests.examples import examples
from tests.made_records import GENERATION, make_record, protocol_of

from ldbench.pipeline.stored_records import with_ranking
from ldbench.results import records, reports, validation
from ldbench.results.image_comparison import SheetSettings
from ldbench.results.records import Record

SHOWN = SheetSettings(rows=1, candidates=1, crop=None)
CFG = {"component": "cfg", "scale": 2.0}
TUNED = {**GENERATION, "guidance": {"tuned": CFG}}
PREDICTION = {
    f"predict/{name}/sit/psnr": 0.5 for name in ("spearman", "kendall", "p", "smallest_p", "tokenizers", "families")
}
KINDS: dict[str, dict[str, Any]] = {  # the records that are altered
    "reconstruct": {},
    "own": {"job": "generate", "generator": "sit", "metrics": {"gfd_digits": (0.5, 0.4, 0.6)}, "protocol": GENERATION},
    "cfg": {"protocol": {**GENERATION, "guidance": CFG}},
    "tuned": {"protocol": TUNED},
    "predict": {"job": "predict", "metrics": PREDICTION},
    "gmm": {"job": "gmm", "metrics": {"gmm/nll/k=1": 0.1, "gmm/nll/k=5": 0.2}},
    "samples": {"job": "generate", "metrics": {"gfd_digits": 0.3}},
}
KINDS |= {kind: {**KINDS["own"], **KINDS[kind]} for kind in ("cfg", "tuned")}
PLACES = {  # of values with a meaning of their own, by kind
    "cfg": [("config", "guidance"), ("config", "guidance", "scale")],
    "tuned": [("protocol", "guidance"), ("higher_is_better",), ("higher_is_better", "gfd_digits")],
    "predict": [("config", "job"), *(("metrics", name, "value") for name in PREDICTION)],
    "samples": [("subject", "samples"), ("subject", "tokenizer")],
    "reconstruct": [("metrics", "psnr", end) for end in ("value", "standard_error", "freedom")],
    "gmm": [("settings",), ("created",), ("seeds", "tokenizer")],
}
FIELDS = ("metrics", "config", "protocol", "settings", "environment", "subject")
METRICS = ("a/k=1e999", "gmm/nll/k=0", "gmm/nll/k=-1e-400", "gfd_digits_of_heldout", "params", "predict/p/sit/fd", "🦊")
KEYS = st.sampled_from(["job", "jobs", "guidance", "scale", "tuned", "component", "path", "trainer", "limit_steps"])
NUMBERS = (
    st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from([10**300, 10**400, -(10**400), float("inf"), 1e308, 1e100, 5e-324, 0, 1, 6.5])
)
ODD = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.sampled_from(["inf", "-inf", "", "🦊", "\u0301", "-2+3", "x" * 200]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=2),
    max_leaves=4,
)


def content_of(kind: str, tokenizer: str, seed: int) -> dict[str, Any]:
    """The JSON of a record."""
    fields = KINDS[kind]
    if "protocol" in fields:
        fields = {**fields, "protocol": protocol_of(**{k: v for k, v in fields["protocol"].items() if k != "hash"})}
    record = make_record(tokenizer=tokenizer, seeds=(seed, 0), settings={}, **fields)
    with tempfile.TemporaryDirectory() as folder:
        content: dict[str, Any] = json.loads(records.write(record, Path(folder)).read_text())
    content["config"]["guidance"] = dict(CFG)
    if kind == "samples":
        content["subject"] |= {"tokenizer": None, "samples": "theirs"}
    if kind == "reconstruct":
        content["metrics"]["psnr"] |= {"standard_error": 0.2, "freedom": 9}
    if kind == "predict":
        content["config"]["job"] = {"target": "gfd_digits"}
        for name in ("tokenizers", "families"):
            content["metrics"][f"predict/{name}/sit/psnr"]["value"] = 6
    return content


def paths_in(content: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where every value of nested mappings stands."""
    for key, value in content.items():
        yield *path, key
        if isinstance(value, dict):
            yield from paths_in(value, (*path, key))


@st.composite
def altered(draw: st.DrawFn, kind: str, content: dict[str, Any]) -> dict[str, Any]:
    """The JSON of a record in which some values are others, or gone, or more, with the hash of its protocol."""
    for _ in range(draw(st.integers(1, 3))):
        everywhere = list(paths_in({field: content[field] for field in FIELDS if field in content}))
        *parents, last = draw(st.sampled_from(PLACES.get(kind, everywhere)) | st.sampled_from(everywhere))
        node: Any = content
        for key in parents:
            node = node.get(key) if isinstance(node, dict) else None
        change = draw(st.sampled_from(["value", "value", "gone", "key", "metric", "optional"]))
        if change == "value" and isinstance(node, dict):
            node[last] = draw(ODD)
        elif change == "gone" and isinstance(node, dict):
            node.pop(last, None)
        elif change == "key" and isinstance(node, dict):
            node[draw(KEYS)] = draw(ODD)
        elif change == "metric" and isinstance(content.get("metrics"), dict):
            content["metrics"][draw(st.sampled_from(METRICS))] = {"value": draw(NUMBERS), "low": None, "high": None}
        elif change == "optional":
            content |= {"schema": draw(st.sampled_from(records.READABLE))}
            content.pop(draw(st.sampled_from(records.OPTIONAL)), None)
    if isinstance(content.get("protocol"), dict):
        content["protocol"]["hash"] = records.protocol_hash(content["protocol"])
    return content


@st.composite
def odd_records(draw: st.DrawFn) -> list[Record]:
    """The valid ones of a few altered records, as the leaderboard reads them."""
    found = []
    for index, kind in enumerate(draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=5))):
        content = content_of(kind, draw(st.sampled_from(["vmae", "maetok"])), draw(st.integers(0, 1)))
        content = {**draw(altered(kind, content)), "id": f"{index:016x}"}
        try:
            found.append(with_ranking(validation.validated(content)))
        except validation.InvalidRecordError:
            continue
    return found


@examples(200, derandomize=True, suppress_health_check=list(HealthCheck))
@given(odd_records())
def test_what_is_valid_is_shown(found: Sequence[Record]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "records"
        for record in found:
            assert validation.read_validated(records.write(record, folder)) == record
        report = reports.build_report(found, folder, Path(scratch), "none", SHOWN)
        report.show()
        contents = report.contents
    assert all(text.encode() for text in contents.values())
    page = contents["leaderboard.html"]
    for data in re.findall(r"<script[^>]*application/json[^>]*>(.*?)</script>", page, re.S):
        json.loads(data, parse_constant=pytest.fail)
