"""What the doctor looks at: an artifact, a record, a store of latents, a service."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch
from torch import nn

from ldbench.artifacts import store as artifacts
from ldbench.core.estimate import Estimate
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


@pytest.fixture
def server() -> Iterator[tuple[str, list[str], dict[str, int]]]:
    """A server on this machine: its address, its requests, and its answer."""
    asked: list[str] = []
    answer = {"status": 200}

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(self.path)
            self.send_response(answer["status"])
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    listening = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.server_port}", asked, answer
    listening.shutdown()
    listening.server_close()
