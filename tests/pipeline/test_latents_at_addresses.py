"""A generator that is trained on latents at an address has the weights of one that is trained on a folder."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.http_server import RangeServer, fail, serve
from tests.pipeline.test_get_generator import CELL

import ldbench
from ldbench.io import remote
from ldbench.io.remote import Unreachable
from ldbench.pipeline import pipeline
from ldbench.training.callbacks import Checkpoint

pytestmark = pytest.mark.trains

SMALL_SHARDS = "latents.shard_size=64"  # several shards


@pytest.fixture
def built(small_overrides: list[str], made_once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """The root of a tiny cell that was trained on a folder."""
    return made_once(
        "cell", lambda root: pipeline.train(ldbench.compose("train", [*small_overrides, *CELL, f"paths.root={root}"]))
    )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RangeServer]:
    (tmp_path / "served").mkdir()
    with serve(tmp_path / "served") as server:
        yield server


@pytest.fixture
def words(built: Path, server: RangeServer, small_overrides: list[str], tmp_path: Path) -> Callable[..., list[str]]:
    """The overrides of the tiny cell with latents at an address, under a root that holds its tokenizer alone."""
    shutil.copytree(built / "artifacts" / "tokenizers", tmp_path / "artifacts" / "tokenizers")

    def given(*overrides: str) -> list[str]:
        place = [f"paths.root={tmp_path}", f"paths.latents={server.address}/latents", SMALL_SHARDS]
        return [*small_overrides, *CELL, *place, *overrides]

    return given


def generator(root: Path) -> tuple[str, bytes]:
    (path,) = root.glob("artifacts/generators/*/weights.safetensors")
    return path.parent.name, path.read_bytes()


@pytest.mark.parametrize("settings", [(), ("latents.cache_dir=null", "trainer.resident=true")])
def test_the_weights_are_those_of_latents_in_a_folder(words, built: Path, server, tmp_path: Path, settings) -> None:
    pipeline.train(ldbench.compose("train", words(*settings)))
    assert generator(tmp_path) == generator(built)
    assert not (tmp_path / "artifacts" / "latents").exists()
    assert len(list(server.folder.glob("latents/*/shard-*.safetensors"))) > 1
    assert not list(tmp_path.glob("artifacts/data/**/*.tmp"))


def test_job_encode_writes_to_an_address_and_says_where(words, server, tmp_path: Path) -> None:
    overrides = [word for word in words() if word not in CELL and word != SMALL_SHARDS]
    cfg = ldbench.compose("run", [*overrides, "job=encode", "job.shard_size=64", "job.heldout=true"])
    pipeline.run(cfg)
    (record,) = tmp_path.glob("records/encode-*/")
    for split in ("train", "test"):
        (store,) = server.folder.glob(f"latents/vmae-digits-{split}-*")
        assert (record / split / "address.txt").read_text().strip() == f"{server.address}/latents/{store.name}"
        assert (record / split / "manifest.json").read_bytes() == (store / "manifest.json").read_bytes()
    server.requests.clear()
    pipeline.run(cfg)
    assert not [key for key in server.requests if key[0] == "PUT"]


def test_a_training_whose_address_stops_answering_goes_on_later(
    words, built: Path, server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.01)
    settings = ("latents.cache_dir=null", "latents.retries=1", "latents.timeout=5", "latents.ahead=1")
    saved = Checkpoint.on_train_batch_end

    def stop_after_two(self: Checkpoint, trainer, task, *rest) -> None:
        saved(self, trainer, task, *rest)
        if task.stage.name == "generator" and task.steps == 2:
            server.faults.append(fail(10**9))

    longer = ("generator.max_steps=8",)
    with monkeypatch.context() as broken:
        broken.setattr(Checkpoint, "on_train_batch_end", stop_after_two)
        with pytest.raises(Unreachable, match=r"does not answer \(2 tries, .* goes on once it answers"):
            pipeline.train(ldbench.compose("train", words(*settings, *longer)))
    server.faults.clear()
    resumed = pipeline.train(ldbench.compose("train", words(*settings, *longer)))
    assert len(list(tmp_path.glob(f"runs/{resumed.name}/log/version_*"))) == 2, "it went on from its checkpoint"
    other = tmp_path / "other"
    shutil.copytree(built / "artifacts" / "tokenizers", other / "artifacts" / "tokenizers")
    pipeline.train(ldbench.compose("train", words(f"paths.root={other}", f"paths.latents={other}/latents", *longer)))
    assert generator(tmp_path) == generator(other)


@pytest.mark.slow
def test_two_processes_make_the_same_weights(words, tmp_path: Path) -> None:
    found = []
    for name, settings in {
        "folder": [f"paths.latents={tmp_path}/folder/latents"],
        "ahead": [],
        "workers": ["trainer.workers=1", "latents.cache_size=0"],
    }.items():
        root = tmp_path / name
        shutil.copytree(tmp_path / "artifacts" / "tokenizers", root / "artifacts" / "tokenizers")
        command = [sys.executable, "-m", "ldbench.train", *words(f"paths.root={root}", "trainer=ddp", *settings)]
        subprocess.run(command, check=True, timeout=600, env={**os.environ, "OMP_NUM_THREADS": "1"})
        found.append(generator(root))
    assert found[0] == found[1] == found[2]
