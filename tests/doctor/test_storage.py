"""Artifacts and records: complete, altered, or interrupted."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.doctor.findings import artifact_findings, only
from torch import nn

from ldbench.artifacts import store
from ldbench.checks import storage


def test_a_complete_artifact_is_counted_and_an_empty_store_is_no_fault(artifact: Path, tmp_path: Path) -> None:
    assert "1 artifact in" in only(artifact_findings(tmp_path), "ok").what
    assert "none in" in only(artifact_findings(tmp_path / "elsewhere"), "ok").what


@pytest.mark.parametrize("name", [store.WEIGHTS, store.CONFIG])
def test_an_altered_artifact_is_broken(name: str, artifact: Path, tmp_path: Path) -> None:
    (artifact / name).write_bytes((artifact / name).read_bytes() + b" ")
    found = only(artifact_findings(tmp_path), "broken")
    assert f"{name} is not what the manifest says" in found.what
    assert f"rm -r {artifact}, then python -m ldbench.train tokenizer=vmae" in found.cure
    (artifact / name).unlink()
    assert only(artifact_findings(tmp_path), "broken") == found


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"short")], ids=["missing", "altered"])
def test_an_artifact_with_a_damaged_average_is_broken(damage: Callable[[Path], object], tmp_path: Path) -> None:
    folder = tmp_path / "artifacts" / "generators" / "sit-0123abcd"
    (tmp_path / "average").write_bytes(b"weights")
    blueprint, averages = store.Blueprint("generator", "generator", {}), {0.999: tmp_path / "average"}
    store.save(nn.Linear(2, 2), folder, blueprint, recipe={}, digest="01", provenance={}, averages=averages)
    assert "1 artifact in" in only(artifact_findings(tmp_path), "ok").what
    damage(folder / "averages" / "0.999.safetensors")
    found = only(artifact_findings(tmp_path), "broken")
    assert found.what == f"{folder}: averages/0.999.safetensors is not what the manifest says"
    assert f"rm -r {folder}, then" in found.cure
    with pytest.raises(ValueError, match="does not match its manifest"):
        store.verify(folder)


def test_an_artifact_of_no_config_group_is_broken(tmp_path: Path) -> None:
    folder = tmp_path / "artifacts" / "tokenizers" / "x-01"
    store.save(nn.Linear(2, 2), folder, store.Blueprint("../..", "x", {}), recipe={}, digest="01", provenance={})
    assert "and there is no such config group" in only(artifact_findings(tmp_path), "broken").what


def test_a_part_of_a_part_may_be_of_a_plugin_too(tmp_path: Path) -> None:
    folder = tmp_path / "artifacts" / "generators" / "sit-01"
    keywords = {"objective": {"component": "flow_matching", "interpolant": {"component": ["mine"]}}}
    blueprint = store.Blueprint("generator", "generator", keywords)
    store.save(nn.Linear(2, 2), folder, blueprint, recipe={}, digest="01", provenance={})
    found = only(artifact_findings(tmp_path), "warning")
    assert """its interpolant, the plug-in "['mine']", is not known here""" in found.what


def test_a_list_of_averages_that_names_other_files_is_broken(artifact: Path, tmp_path: Path) -> None:
    manifest = json.loads((artifact / store.MANIFEST).read_text())
    (artifact / store.MANIFEST).write_text(json.dumps(manifest | {"averages": {"../x": "01"}}))
    assert "lists an average '../x'" in only(artifact_findings(tmp_path), "broken").what


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"files": ["config.json", "weights.safetensors"]}'])
def test_a_manifest_that_cannot_be_read_is_broken(content: str, artifact: Path, tmp_path: Path) -> None:
    (artifact / store.MANIFEST).write_text(content)
    fields = only(artifact_findings(tmp_path), "broken").what
    assert "cannot be read" in fields or "manifest.json is no manifest of an artifact (files is missing" in fields


def test_an_artifact_of_another_schema_is_broken(artifact: Path, tmp_path: Path) -> None:
    manifest = json.loads((artifact / store.MANIFEST).read_text())
    (artifact / store.MANIFEST).write_text(json.dumps(manifest | {"schema": 99}))
    assert "has schema 99, and this version of ldbench reads 1" in only(artifact_findings(tmp_path), "broken").what


def test_interrupted_artifacts_are_warnings_beside_complete_ones(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "artifacts" / "generators" / "sit-99").mkdir(parents=True)
    (artifact.parent / ".building-x1").mkdir()
    (artifact.parent / ".vmae-0123abcd.lock").touch()
    fine, partial, left = artifact_findings(tmp_path)
    assert (fine.level, partial.level, left.level) == ("ok", "warning", "warning")
    assert "sit-99 has no manifest.json" in partial.what
    assert "the command that made it" in partial.cure
    assert f"rm -r {artifact.parent / '.building-x1'}" in left.cure


def test_checkpoints_may_be_removed_only_if_their_artifact_is_complete(artifact: Path, tmp_path: Path) -> None:
    for name in (artifact.name, "vmae-unfinished"):
        (tmp_path / "runs" / name / "checkpoints").mkdir(parents=True)
        (tmp_path / "runs" / name / "checkpoints" / "tune.ckpt").write_bytes(bytes(3_000_000))
    _, spare = artifact_findings(tmp_path)
    assert spare.level == "ok"
    assert spare.what.startswith("3.0 MB of checkpoints may be removed")
    assert spare.cure == f"To free the space: rm -r {tmp_path / 'runs' / artifact.name / 'checkpoints'}"
    (artifact / store.WEIGHTS).write_bytes(b"")
    only(artifact_findings(tmp_path), "broken")


def test_records_are_read_and_other_files_are_broken(record: Path) -> None:
    assert "1 record in" in only(storage.check_records(record.parent), "ok").what
    (record.parent / "notes.json").write_text("[]")
    (record.parent / "later.json").write_text('{"schema": 99}')
    (record.parent / ".half.json").write_text("{")
    fine, later, notes = storage.check_records(record.parent)
    assert (fine.level, later.level, notes.level) == ("ok", "broken", "broken")
    assert "later.json: schema must be 1 or 2, which is what this version of ldbench reads; got 99" in later.what
    assert "notes.json: the file must be a JSON object" in notes.what
    assert "move it out of" in notes.cure
