"""Stores of latents: whole, altered, or left in the middle."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.doctor.findings import artifact_findings, only

from ldbench.checks import latents


def test_a_whole_store_of_latents_is_counted_apart_from_artifacts(store: Path, artifact: Path, tmp_path: Path) -> None:
    assert "1 store in" in only(latents.check_latents(store.parent), "ok").what
    assert "1 artifact in" in only(artifact_findings(tmp_path), "ok").what
    assert "none in" in only(latents.check_latents(tmp_path / "elsewhere"), "ok").what


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda held: held[:-1] + b"?", "was altered: its checksum differs"),
        (lambda held: held[:-1], "bytes, but its manifest has"),
    ],
)
def test_altered_latents_are_broken(store: Path, content: Callable[[bytes], bytes], message: str) -> None:
    path = store / "shard-00001.safetensors"
    path.write_bytes(content(path.read_bytes()))
    found = only(latents.check_latents(store.parent), "broken")
    assert "shard-00001.safetensors" in found.what
    assert message in found.what
    assert f"rm -r {store}, then python -m ldbench.run job=encode" in found.cure


def test_latents_with_a_manifest_that_cannot_be_read_are_broken(store: Path) -> None:
    (store / "manifest.json").write_text("{")
    assert "cannot be read" in only(latents.check_latents(store.parent), "broken").what


def test_interrupted_latents_are_a_warning_with_how_to_complete_them(store: Path) -> None:
    (store / "manifest.json").unlink()
    (store / "shard-00000.json").touch()
    found = only(latents.check_latents(store.parent), "warning")
    assert "was interrupted after 1 shard" in found.what
    assert "Complete it: python -m ldbench.run job=encode" in found.cure


def test_leftovers_of_building_latents_may_be_removed(store: Path) -> None:
    (store / "plan.json").touch()
    (store / ".shard-00001.safetensors.77.tmp").touch()
    fine, spare = latents.check_latents(store.parent)
    assert (fine.level, spare.level) == ("ok", "warning")
    assert "has 2 files" in spare.what
    subprocess.run(spare.cure.partition(": ")[2], shell=True, check=True)
    only(latents.check_latents(store.parent), "ok")


def test_stores_at_an_address_are_named_and_not_looked_at() -> None:
    found = only(latents.describe_address("s3://bucket/latents"), "ok")
    assert "s3://bucket/latents" in found.what
    assert "not looked at" in found.what
