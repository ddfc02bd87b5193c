"""Model cards: measurements and citations. Uploads to the hub are tested in tests/artifacts/test_hub.py."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from ldbench import official
from ldbench.artifacts import store
from ldbench.core.estimate import Estimate
from ldbench.official import model_card
from ldbench.results import records


def record(job: str, **roles: str) -> records.Record:
    """A record of artifacts."""
    rest = {
        "subject": {"tokenizer": "a", "generator": None, "data": "digits"},
        "config": {},
        "environment": {},
        "created": "2030-01-01",
    }
    return records.Record(
        id=job, job=job, metrics={"psnr": Estimate(float("inf"))}, protocol={"hash": "0" * 16}, artifacts=roles, **rest
    )


def test_a_tokenizers_records_are_not_those_of_its_generators() -> None:
    own, cell, other = (
        record("own", tokenizer="t-1"),
        record("cell", tokenizer="t-1", generator="g-1"),
        record("other", tokenizer="t-2"),
    )
    found = [own, cell, other]
    assert model_card.select_records(found, "t-1", "key", "tokenizer") == [own]
    assert model_card.select_records(found, "g-1", "key", "generator") == [cell]
    here, elsewhere = (replace(own, weights={"tokenizer": key}) for key in ("aa", "bb"))
    assert model_card.select_records([here, elsewhere, own], "t-1", "aa", "tokenizer") == [here, own]


def write_artifact(folder: Path, component: str, **recipe: object) -> Path:
    """An artifact folder without weights."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(
        json.dumps({"group": folder.parent.name[:-1], "component": component, "keywords": {}, "recipe": recipe})
    )
    manifest = {
        "files": {"config.json": "", "weights.safetensors": ""},
        "schema": store.SCHEMA,
        "digest": folder.name.rpartition("-")[2],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_generators_card_cites_the_paper_of_its_tokenizer_too(tmp_path: Path) -> None:
    own = write_artifact(
        tmp_path / "generators" / "lightningdit_xl_1-01234567",
        "generator",
        official="lightningdit_xl_1",
        upstream={"tokenizer": "89abcdef00"},
    )
    assert model_card.describe_citations(own, []).count("eprint") == 1, "its tokenizer is unknown"
    cell = [record("cell", tokenizer="maetok-89abcdef", generator=own.name)]
    assert official.entry("maetok_b_128").citation.rpartition("arXiv:")[2] in model_card.describe_citations(own, cell)
    write_artifact(tmp_path / "tokenizers" / "mine-89abcdef", "vmae")
    text = model_card.describe_citations(own, cell)
    assert [
        official.entry(name).citation.rpartition("arXiv:")[2] in text
        for name in ("lightningdit_xl_1", "vmae_f8d16", "maetok_b_128")
    ] == [*(True, True, False)]


@pytest.mark.parametrize("name", sorted(official.catalog()))
def test_every_official_citation_converts_to_bibtex(name: str) -> None:
    text = model_card.bibtex(official.entry(name).citation)
    assert re.split("arXiv:|, (?=https:)", official.entry(name).citation)[-1] in text
    assert text.count("{") == text.count("}")


def test_the_papers_are_those_of_official_models() -> None:
    assert set(model_card.PAPERS.values()) <= official.catalog().keys()
