"""A store's digest covers what its numbers depend on, and nothing else."""

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest

from ldbench.data.latents.manifest import DISPLAYED, Contents, Manifest, is_complete, read_manifest
from ldbench.data.latents.store import LatentStore

PROTOCOL_FIELDS = {
    "tokenizer_key": "99" * 32,
    "fingerprint": "cd" * 32,
    "split": "test",
    "preprocessing": {"image_size": 16},
    "flips": True,
    "dtype": "bf16",
    "precision": "bf16",
    "source": "ef" * 32,
}


def test_every_field_counts_or_is_displayed() -> None:
    assert {field.name for field in fields(Contents)} == PROTOCOL_FIELDS.keys() | set(DISPLAYED)


@pytest.mark.parametrize("key", PROTOCOL_FIELDS)
def test_fields_that_change_the_numbers_change_the_digest(contents: Contents, key: str) -> None:
    assert replace(contents, **{key: PROTOCOL_FIELDS[key]}).digest() != contents.digest()


def test_names_do_not_change_the_digest(contents: Contents) -> None:
    assert replace(contents, tokenizer="renamed-00", data="also", num_classes=9).digest() == contents.digest()


def test_the_folder_is_named_after_tokenizer_data_split_and_digest(contents: Contents, tmp_path: Path) -> None:
    assert contents.folder(tmp_path) == tmp_path / f"formula-noise-train-{contents.digest()[:8]}"
    assert replace(contents, tokenizer="plain").folder(tmp_path).name.startswith("plain-noise-train-")


def test_the_revision_changes_the_digest(contents: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    from ldbench.data.latents import manifest

    before = contents.digest()
    monkeypatch.setattr(manifest, "REVISION", 99)
    assert contents.digest() != before


def test_a_manifest_has_derived_statistics_and_round_trips(store: Callable[..., LatentStore]) -> None:
    opened = store(flips=True)
    numbers = json.loads((opened.place.path / "manifest.json").read_text())
    assert is_complete(opened.place.path)
    assert (numbers["num_images"], numbers["num_rows"], numbers["posterior"], numbers["digest"]) == (
        50,
        100,
        "gaussian",
        opened.manifest.contents.digest(),
    )
    assert numbers["statistics"]["flips_count"] is False
    assert numbers["statistics"]["std_of_samples"] == opened.manifest.statistics.std().tolist()
    assert numbers["statistics"]["scalar"]["std_of_samples"] == opened.manifest.statistics.overall().std().item()
    assert [shard["num_images"] for shard in numbers["shards"]] == [16, 16, 16, 2]
    assert read_manifest(opened.place.path).to_dict() == Manifest.from_dict(numbers).to_dict() == numbers


def test_an_interrupted_store_reports_its_progress(tmp_path: Path) -> None:
    (tmp_path / "shard-00000.json").touch()
    with pytest.raises(ValueError, match="it was interrupted after 1 shards"):
        read_manifest(tmp_path)
