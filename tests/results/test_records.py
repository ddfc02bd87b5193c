"""Records: written whole, read as they were, found again under their id."""

import json
import math
import platform
from dataclasses import replace

import pytest

from ldbench.core.estimate import Estimate
from ldbench.results import records
from ldbench.results.records import Record, record_id

SAID = {
    "job": "reconstruct",
    "settings": {"batch_size": 8},
    "artifacts": {"tokenizer": "abc"},
    "data": "def",
    "protocol": "012",
    "revision": 1,
}


@pytest.fixture
def record() -> Record:
    return Record(
        id=record_id(**SAID),
        job="reconstruct",
        subject={"tokenizer": "vmae", "generator": None, "data": "digits"},
        metrics={
            "psnr": Estimate(math.inf, 20.125, math.inf),
            "mse": Estimate(0.1 + 0.2),
            "gain": Estimate(-math.inf, -math.inf, 1e-300),
        },
        protocol={"name": "default", "reconstruction": ["psnr"], "hash": "012"},
        artifacts={"tokenizer": "vmae-abc"},
        config={"tokenizer": {"name": "vmae", "weights": None}},
        environment=records.environment(),
        created=records.now(),
        models={"tokenizer": "abc"},
        seeds={"tokenizer": 0},
    )


def test_a_record_is_read_as_it_was_written(record, tmp_path):
    path = records.write(record, tmp_path / "records")
    assert path == tmp_path / "records" / f"reconstruct-{record.id}.json"
    assert records.read(path) == record


def test_infinities_are_written_as_strict_json(record, tmp_path):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    content = json.loads(records.write(record, tmp_path).read_text(), parse_constant=refuse)
    assert content["metrics"]["psnr"] == {"value": "inf", "low": 20.125, "high": "inf"}
    assert content["metrics"]["gain"]["value"] == "-inf"
    assert content["metrics"]["mse"] == {"value": 0.1 + 0.2, "low": None, "high": None}


def test_writing_leaves_one_file_and_writing_again_replaces_it(record, tmp_path):
    records.write(record, tmp_path)
    newer = replace(record, created="2030-01-01T00:00:00+00:00")
    path = records.write(newer, tmp_path)
    assert list(tmp_path.iterdir()) == [path]
    assert records.read(path) == newer


def test_a_record_that_cannot_be_written_leaves_the_old_one_and_no_scraps(record, tmp_path, monkeypatch):
    path = records.write(record, tmp_path)
    with pytest.raises(ValueError, match=r"not JSON compliant"):
        records.write(replace(record, metrics={"psnr": Estimate(math.nan)}), tmp_path)
    with pytest.raises(TypeError):
        records.write(replace(record, config={"model": object()}), tmp_path)
    assert list(tmp_path.iterdir()) == [path]
    assert records.read(path) == record


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"id": "cut sho',
        "[]",
        "3",
        "{}",
        '{"metrics": {}}',
        '{"metrics": {"psnr": 3.0}}',
        '{"metrics": {"psnr": {"value": 3.0, "median": 2.0}}}',
        '{"metrics": {"psnr": {"value": "much"}}}',
    ],
)
def test_what_is_no_record_is_refused_by_file_name(tmp_path, content):
    path = tmp_path / "reconstruct-0123.json"
    path.write_text(content)
    with pytest.raises(
        ValueError, match=r"reconstruct-0123.json is not a record of ldbench .*Move it out of the records folder"
    ):
        records.read(path)


def test_a_file_that_is_no_text_is_refused_by_file_name(tmp_path):
    path = tmp_path / "reconstruct-0123.json"
    path.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(ValueError, match=r"reconstruct-0123.json is not a record of ldbench"):
        records.read(path)


@pytest.mark.parametrize("changed", [{}, {"licence": "a field of the future"}])
def test_a_record_of_another_schema_is_refused_with_both_numbers(record, tmp_path, changed):
    path = records.write(record, tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 99} | changed))
    with pytest.raises(
        ValueError, match=rf"{path.name} has schema 99, and this version of ldbench reads 1 and {records.SCHEMA}"
    ):
        records.read(path)


def test_the_id_is_the_same_for_the_same_measurement_whatever_the_order_of_keys():
    assert record_id(**SAID) == record_id(**SAID)
    settings = {"a": 1, "b": {"c": 2, "d": 3}}
    turned = {"b": {"d": 3, "c": 2}, "a": 1}
    assert record_id(**SAID | {"settings": settings}) == record_id(**SAID | {"settings": turned})


@pytest.mark.parametrize(
    "changed",
    [
        {"job": "generate"},
        {"settings": {"batch_size": 9}},
        {"settings": {"batch_size": 8, "more": None}},
        {"artifacts": {"tokenizer": "abd"}},
        {"artifacts": {"generator": "abc"}},
        {"artifacts": {"tokenizer": "abc", "generator": "abc"}},
        {"data": "dee"},
        {"protocol": "013"},
        {"revision": 2},
    ],
)
def test_the_id_changes_with_every_ingredient(changed):
    assert record_id(**SAID | changed) != record_id(**SAID)


def test_ingredients_do_not_stand_in_for_each_other():
    swapped = SAID | {"data": SAID["protocol"], "protocol": SAID["data"]}
    assert record_id(**swapped) != record_id(**SAID)


def test_the_environment_names_versions_and_no_host():
    environment = json.dumps(records.environment())
    assert '"torch"' in environment
    assert '"ldbench"' in environment
    assert not platform.node() or platform.node() not in environment
