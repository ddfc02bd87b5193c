"""The store: what is sound is read, and other people's records come in whole or not at all."""

import json
import logging

import pytest

from ldbench.results import records, store

PNG = store.PNG + b"rest"


def test_records_come_oldest_first_and_what_is_none_is_said_and_left_out(make, tmp_path, caplog):
    new, old = make(tokenizer="vavae", created="2026-02-01T00:00:00+00:00"), make(created="2026-01-01T00:00:00+00:00")
    for record in (new, old):
        records.write(record, tmp_path)
    (tmp_path / "reconstruct-0123.json").write_text("{}")
    (tmp_path / ".reconstruct-01.json.4.tmp").write_text("")
    with caplog.at_level(logging.WARNING):
        assert store.read_all(tmp_path) == [old, new]
    assert "reconstruct-0123.json: id is missing" in caplog.text


def test_merging_brings_records_and_their_sheets_and_keeps_what_is_ours(make, tmp_path):
    mine, both, theirs = make(tokenizer="maetok"), make(tokenizer="vmae"), make(tokenizer="vavae")
    ours, other = tmp_path / "ours", tmp_path / "other"
    kept = records.write(both, ours).read_bytes()
    records.write(mine, ours)
    for record in (both, theirs):
        path = records.write(record, other)
        path.write_text(json.dumps(json.loads(path.read_text()) | {"created": "2030-01-01T00:00:00+00:00"}))
        path.with_suffix("").mkdir()
        (path.with_suffix("") / "reconstructions.png").write_bytes(PNG)
        (path.with_suffix("") / "fake.png").write_bytes(b"<svg onload=alert(1)>")
        (path.with_suffix("") / "images.csv").write_text("image,psnr")
        (path.with_suffix("") / "link.png").symlink_to("/etc/hostname")
    (new,) = store.merge(other, ours)
    assert records.read(records.path_of(ours, new.job, new.id)).higher_is_better == theirs.higher_is_better != {}
    assert new.subject["tokenizer"] == "vavae"
    assert {record.id for record in store.read_all(ours)} == {mine.id, both.id, theirs.id}
    assert records.path_of(ours, both.job, both.id).read_bytes() == kept
    assert [path.name for path in (ours / f"reconstruct-{theirs.id}").iterdir()] == ["reconstructions.png"]
    assert store.merge(other, ours) == []


def test_a_huge_sheet_is_left_out_and_said(make, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(store, "LARGEST", 10)
    record = make()
    figures = records.write(record, tmp_path).with_suffix("")
    figures.mkdir()
    (figures / "samples.png").write_bytes(PNG)
    assert store.sheets(tmp_path, record) == []
    assert "samples.png has 12 bytes and is left out" in caplog.text


def test_one_bad_record_stops_a_merge_before_anything_is_copied(make, tmp_path):
    good = records.write(make(), tmp_path / "other")
    bad = json.loads(records.write(make(tokenizer="vavae"), tmp_path / "other").read_text())
    bad["metrics"]["psnr"]["high"] = "much"
    (tmp_path / "other" / f"reconstruct-{bad['id']}.json").write_text(json.dumps(bad))
    with pytest.raises(
        ValueError,
        match=rf"reconstruct-{bad['id']}\.json: metrics\.psnr\.high must be a number, 'inf' or '-inf'; got 'much'",
    ):
        store.merge(tmp_path / "other", tmp_path / "ours")
    assert good.is_file()
    assert not (tmp_path / "ours").exists()


def test_merging_nothing_is_a_mistake(tmp_path):
    with pytest.raises(ValueError, match="There are no records in"):
        store.merge(tmp_path / "nowhere", tmp_path)
