"""What the doctor looks at: an artifact, a record, a store of latents."""

from pathlib import Path

import pytest
import torch
from torch import nn

from ldbench.artifacts import store as artifacts
from ldbench.core.interfaces import Estimate
from ldbench.core.latent import LatentSpec
from ldbench.data.latents.manifest import Contents
from ldbench.data.latents.writing import StoreWriter
from ldbench.results import records


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """A whole artifact, under the name of a tokenizer that the config knows."""
    folder = tmp_path / "artifacts" / "tokenizers" / "vmae-0123abcd"
    blueprint = artifacts.Blueprint("tokenizer", "vmae", {})
    artifacts.save(nn.Linear(2, 2), folder, blueprint, recipe={}, digest="0123abcd", provenance={})
    return folder


@pytest.fixture
def record(tmp_path: Path) -> Path:
    empty = {name: {} for name in ("artifacts", "config", "environment", *records.BY_ROLE)}
    protocol = {"name": "digits", "hash": records.protocol_hash({})}
    fields = {
        "subject": {"tokenizer": "vmae", "generator": None, "data": "digits"},
        "protocol": protocol,
        "created": "2026-11-24T16:13:24+00:00",
    }
    return records.write(
        records.Record(id="01", job="reconstruct", metrics={"psnr": Estimate(20.0)}, **fields, **empty),
        tmp_path / "records",
    )


@pytest.fixture
def store(tmp_path: Path, artifact: Path) -> Path:
    """A whole store of latents."""
    fields = {
        "tokenizer_digest": "0123abcd",
        "tokenizer_key": artifacts.content_key(artifact),
        "data": "digits",
        "num_classes": 10,
        "fingerprint": "ab",
        "split": "train",
        "preprocessing": {},
    }
    contents = Contents(tokenizer="vmae-0123abcd", flips=False, dtype="fp32", precision="fp32", **fields)
    folder = contents.folder(tmp_path / "artifacts" / "latents")
    writer = StoreWriter(folder, contents, latent=LatentSpec(2, 3), num_images=5, shard_size=3)
    for shard in writer.missing():
        count = len(writer.shard_images(shard))
        writer.write(shard, torch.zeros(count, 2, 2, 3), torch.zeros(count, dtype=torch.int64))
    writer.finish()
    return folder
