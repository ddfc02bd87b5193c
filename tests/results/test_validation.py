"""Records of unknown origin: valid ones are read as they were written, and a wrong field is named by its key."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ldbench.core.estimate import Estimate
from ldbench.results import records, validation
from ldbench.results.protocol import Protocol

NUMBER = {"value": 1.0, "low": None, "high": None}


@pytest.fixture
def content(make, tmp_path) -> dict[str, Any]:
    """The JSON of a valid record."""
    return json.loads(
        records.write(make(metrics={"psnr": (40.0, 39.0, 41.0), "mse": 0.1}), tmp_path / "sound").read_text()
    )


def changed(content: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    *parents, last = place.split(".")
    node = content
    for key in parents:
        node = node[key]
    if value is Ellipsis:
        del node[last]
    else:
        node[last] = value
    return content


def test_a_valid_record_is_read_as_it_was_written(make, tmp_path):
    record = make(metrics={"psnr": (math.inf, 30.0, math.inf), "mse": 0.1, "gain": -math.inf})
    assert validation.read_validated(records.write(record, tmp_path)) == record


def test_a_record_without_the_optional_fields_is_read_and_written_without_them(make, tmp_path):
    record = replace(make(), higher_is_better=None, settings=None)
    path = records.write(record, tmp_path)
    assert validation.read_validated(path) == records.read(path) == record
    assert not {"higher_is_better", "settings"} & json.loads(path.read_text()).keys()


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("id", "../../etc/passwd", "id must match"),
        ("id", "ABC", "id must match"),
        ("id", "0123", "id must be that of the file's name"),
        ("id", 3, "id must match"),
        ("id", ..., "id is missing"),
        ("job", "rm -rf", "job must match"),
        ("job", "../x", "job must match"),
        ("schema", 99, "schema must be 1"),
        ("extra", 1, "extra is no field of a record"),
        ("subject", [], "subject must be a JSON object"),
        ("subject.tokenizer", "", "subject.tokenizer must be a name"),
        ("subject.tokenizer", "a\u202eb", "subject.tokenizer must be a name"),
        ("subject.tokenizer", "a\x1b[31m", "subject.tokenizer must be a name"),
        ("subject.data", "x" * 300, "subject.data must be a name"),
        ("subject.generator", 4, "subject.generator must be a name"),
        ("subject.owner", "me", "subject.owner is no field"),
        ("higher_is_better", [], "higher_is_better must be a JSON object"),
        ("higher_is_better.psnr", 1, "higher_is_better.psnr must be true or false"),
        ("higher_is_better.loudness", True, "higher_is_better must name metrics of the record"),
        ("settings", "all", "settings must be a JSON object"),
        ("metrics", None, "metrics must be a JSON object"),
        ("metrics.psnr", 3.0, "metrics.psnr must be a JSON object"),
        ("metrics.psnr.value", "40", "metrics.psnr.value must be a number"),
        ("metrics.psnr.value", True, "metrics.psnr.value must be a number"),
        ("metrics.psnr.value", None, "metrics.psnr.value must be a number"),
        ("metrics.psnr.value", 1e200, "metrics.psnr.value must be a number"),
        ("metrics.psnr.value", 10**400, "metrics.psnr.value must be a number"),
        ("metrics.psnr.low", None, "metrics.psnr.low and high must both be numbers or both be null"),
        ("metrics.psnr.low", 42.0, "metrics.psnr.low must not be above high"),
        ("metrics.psnr.median", 1.0, "metrics.psnr.median is no field"),
        ("metrics.mse.high", ..., "metrics.mse.high is missing"),
        ("protocol.split", "train", "protocol.hash must be the hash of the protocol's fields"),
        ("protocol.hash", ..., "protocol.hash must be the hash"),
        ("protocol.name", None, "protocol.name must be a name"),
        ("artifacts.tokenizer", {}, "artifacts.tokenizer must be a name"),
        ("config", "vmae", "config must be a JSON object"),
        ("environment", [1], "environment must be a JSON object"),
        ("config.tokenizer.note", "\x1b[2J", "config.tokenizer.note must be printable text"),
        ("config.tokenizer.\x1b", 1, "a key of config.tokenizer must be a name"),
        ("environment.packages.torch", ["a", "b\nc"], "environment.packages.torch[1] must be printable text"),
        ("protocol.note", "\u202e", "protocol.note must be printable text"),
        ("created", "yesterday", "created must be a time"),
        ("created", 5, "created must be a time"),
        ("created", "2026-01-31\x1b12:00:00+00:00", "created must be a time"),
        ("metrics.a/k=1e999", NUMBER, "metrics must have points at numbers of at most 1e+100 in size"),
        ("metrics.predict/tokenizers/sit/psnr", NUMBER | {"value": "inf"}, "psnr.value must be a whole number of 0 to"),
        ("metrics.predict/families/sit/psnr", NUMBER | {"value": 1.5}, "psnr.value must be a whole number of 0 to"),
        ("config.job", "predict", "config.job must be a JSON object"),
        ("config.guidance", {"scale": 10**400}, "config.guidance.scale must be a finite number of at most 1.8e+308"),
        ("settings.limit", 10**309, "settings.limit must be a finite number"),
        ("seeds", {"\x1b[2J": "a"}, "seeds may have the keys tokenizer, generator, samples"),
        ("seeds.tokenizer", -(10**400), "seeds.tokenizer must be a finite number"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(content, tmp_path, place, value, message):
    path = tmp_path / f"{content['job']}-{content['id']}.json"
    path.write_text(json.dumps(changed(content, place, value)))
    with pytest.raises(ValueError, match=r"reconstruct-[0-9a-f]+\.json: ") as refused:
        validation.read_validated(path)
    assert message in str(refused.value)
    assert len(str(refused.value).partition(".json: ")[2]) < 250
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "text", ["", "[", "\xff", '{"a": NaN}', '{"a": Infinity}', '{"id": "a", "id": "b"}', "[" * 100_000]
)
def test_what_is_no_strict_json_is_refused(tmp_path, text):
    path = tmp_path / "reconstruct-01.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"reconstruct-01.json: the file is not JSON"):
        validation.read_validated(path)


def test_an_infinity_that_is_spelled_as_a_number_is_refused(content, tmp_path):
    path = tmp_path / f"{content['job']}-{content['id']}.json"
    path.write_text(json.dumps(changed(content, "environment.load", 1.5)).replace("1.5", "1e999"))
    with pytest.raises(
        ValueError, match=r"environment\.load must be a finite number of at most 1.8e\+308 in size; got inf"
    ):
        validation.read_validated(path)


def test_what_is_no_object_is_refused(tmp_path):
    path = tmp_path / "reconstruct-01.json"
    path.write_text("[1]")
    with pytest.raises(ValueError, match="the file must be a JSON object"):
        validation.read_validated(path)


def test_endless_nesting_is_refused(content, tmp_path):
    deep = current = {}
    for _ in range(200):
        current["a"] = current = {}
    path = tmp_path / f"{content['job']}-{content['id']}.json"
    path.write_text(json.dumps(content | {"config": deep}))
    with pytest.raises(ValueError, match="more than 30 levels deep"):
        validation.read_validated(path)


def test_a_huge_file_is_not_even_read(tmp_path):
    path = tmp_path / "reconstruct-01.json"
    path.write_bytes(b" " * (validation.LARGEST + 1))
    with pytest.raises(ValueError, match="a record has at most"):
        validation.read_validated(path)


def test_the_hash_of_a_protocol_is_the_one_that_is_checked():
    fields = {
        "name": "x",
        "split": "test",
        "pixel_rule": "round",
        "latent": "mean",
        "seed": 0,
        "reconstruction": ["psnr"],
        "extractor": None,
    }
    more = {
        "distribution": [],
        "ratio_extractors": [],
        "kept": 100,
        "weights": {},
        "num_samples": 10,
        "labels": "balanced",
        "reference": "train",
    }
    described = Protocol(**fields, **more).described(data="abc")
    assert (
        described["hash"]
        == records.protocol_hash(described)
        == records.protocol_hash(json.loads(json.dumps(described)))
    )


def test_numbers_keep_every_digit(content):
    content["metrics"]["mse"]["value"] = 0.1 + 0.2
    assert validation.validated(json.loads(json.dumps(content))).metrics["mse"] == Estimate(0.1 + 0.2)


def test_the_records_of_a_matrix_are_sound(store: Path):
    for path in store.glob("*.json"):
        assert validation.read_validated(path).job
