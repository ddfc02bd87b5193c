"""One content, one result: images of Fashion-MNIST in their IDX files, as a folder, parquet files, tar shards, and tar
shards over HTTP.

Batches, fingerprints, digests of artifacts, weights, and ids of records are equal, also for a training that is killed
and goes on, and for one that two processes share.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from tests.http_server import RangeServer, fail, serve
from tests.pipeline.trainings import same, trained
from tests.small_containers import write
from tests.small_datasets import FASHION_MNIST
from torch.utils.data import DataLoader

import ldbench
from ldbench.config.components import instantiate
from ldbench.config.compose import Registry
from ldbench.io import remote
from ldbench.io.remote import Unreachable
from ldbench.pipeline import pipeline
from ldbench.training.callbacks import Checkpoint

SOURCES = ("folder", "idx", "parquet", "tar", "http")
OTHERS = SOURCES[1:]  # are held against the folder
DATA = {"folder": "folder", "idx": "fashion_mnist", "parquet": "hf", "tar": "shards", "http": "shards"}
LATE = pytest.mark.slow  # of most rows: the suite by default trains from one source besides the folder


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same images in each container."""
    root = tmp_path_factory.mktemp("containers")
    data = instantiate(Registry().option("data", "fashion_mnist"), root=str(FASHION_MNIST))
    for kind in ("folder", "parquet", "tar"):
        write(root / kind, kind, root / "records", data=data, shard_size=60)
    return root


@pytest.fixture(scope="module")
def server(containers: Path) -> Iterator[RangeServer]:
    with serve(containers / "tar") as server:
        yield server


@pytest.fixture
def words(containers: Path, server: RangeServer, small_overrides: list[str]) -> Callable[..., list[str]]:
    """The overrides of a tiny training on a source, under a root of its own."""

    def given(source: str, root: Path, *more: str) -> list[str]:
        place = {"http": server.address, "idx": FASHION_MNIST}.get(source, containers / source)
        data = [f"data={DATA[source]}", f"data.root={place}", "data.subset=null"]
        if source != "idx":  # which is known by its content, and whose mirrored images are of no class
            data += ["data.fingerprint=content", "data.label_safe_flips=false"]
        return [*small_overrides, *data, "protocol=default", f"paths.root={root}", *more]

    return given


@pytest.fixture
def small_of(words, tmp_path: Path) -> Callable[..., DictConfig]:
    return lambda source, *more: ldbench.compose("train", words(source, tmp_path / source, *more))


def batches(cfg: DictConfig, *, workers: int) -> list[torch.Tensor]:
    """The training images in shuffled batches, and crops of them."""
    data = instantiate(cfg.data)
    order = torch.Generator().manual_seed(0)
    loader = DataLoader(data.train, batch_size=7, shuffle=True, generator=order, num_workers=workers)
    crops = [
        data.train.draw(i, scale=(0.3, 1), ratio=(0.8, 1.2), rng=torch.Generator().manual_seed(i))[0] for i in range(5)
    ]
    return [part for batch in loader for part in batch] + crops


@pytest.mark.parametrize("source", OTHERS)
def test_batches_and_fingerprints_are_equal(source: str, small_of) -> None:
    reference, cfg = small_of("folder"), small_of(source)
    for workers in (0, 2):
        pairs = zip(batches(reference, workers=workers), batches(cfg, workers=workers), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    ours, theirs = instantiate(reference.data), instantiate(cfg.data)
    assert theirs.fingerprint == ours.fingerprint
    assert theirs.class_names == ours.class_names


@pytest.mark.trains
@pytest.mark.parametrize("source", [pytest.param(s, marks=[] if s == "http" else LATE) for s in OTHERS])
def test_artifacts_weights_and_records_are_equal(source: str, small_of, tmp_path: Path) -> None:
    for each in ("folder", source):
        pipeline.train(small_of(each))

    def made(root: Path) -> dict[str, bytes]:
        return {path.parent.name: path.read_bytes() for path in root.glob("artifacts/tokenizers/*/weights.safetensors")}

    def recorded(root: Path) -> set[str]:
        return {path.name for path in root.glob("records/*.json")}

    assert len(made(tmp_path / "folder")) == 1
    assert made(tmp_path / source) == made(tmp_path / "folder")
    assert recorded(tmp_path / source) == recorded(tmp_path / "folder") != set()


def stop_at(step: int, then: Callable[[], None]) -> Callable[..., None]:
    """A checkpoint's method that saves, and then does something at a step."""
    saved = Checkpoint.on_train_batch_end

    def save_and_stop(self: Checkpoint, trainer, task, *rest) -> None:
        saved(self, trainer, task, *rest)
        if task.stage.name == "pretrain" and task.steps == step:
            then()

    return save_and_stop


def power_cut() -> None:
    raise RuntimeError("the power is gone")


@pytest.mark.trains
@pytest.mark.parametrize("source", [pytest.param(s, marks=LATE) for s in OTHERS])
def test_a_training_that_is_broken_off_goes_on_to_the_same_weights(source: str, small_of, monkeypatch) -> None:
    _, unbroken = trained(small_of("folder"))
    with monkeypatch.context() as broken:
        broken.setattr(Checkpoint, "on_train_batch_end", stop_at(3, power_cut))
        with pytest.raises(RuntimeError, match="the power is gone"):
            trained(small_of(source))
    _, resumed = trained(small_of(source))
    assert same(unbroken, resumed)


@pytest.mark.trains
def test_a_training_whose_address_stops_answering_goes_on_later(small_of, server: RangeServer, monkeypatch) -> None:
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.01)
    _, unbroken = trained(small_of("folder"))
    settings = ("data.cache_dir=null", "data.retries=1", "data.timeout=2")
    with monkeypatch.context() as broken:
        broken.setattr(Checkpoint, "on_train_batch_end", stop_at(3, lambda: server.faults.append(fail(10**9))))
        with pytest.raises(
            Unreachable, match=r"train-0000\d\.tar does not answer \(2 tries, .* goes on once it answers"
        ):
            trained(small_of("http", *settings))
    server.faults.clear()
    planned, resumed = trained(small_of("http", *settings))
    assert same(unbroken, resumed)
    assert len(list(planned.run_folder.glob("log/version_*"))) == 2, "it went on from its checkpoint"


@pytest.mark.slow
@pytest.mark.trains
@pytest.mark.parametrize("source", SOURCES[1:])
def test_two_processes_make_the_same_weights(source: str, words, tmp_path: Path) -> None:
    found = []
    for each in ("folder", source):
        root = tmp_path / each
        command = [sys.executable, "-m", "ldbench.train", *words(each, root, "trainer=ddp", "trainer.workers=1")]
        subprocess.run(command, check=True, timeout=600, env={**os.environ, "OMP_NUM_THREADS": "1"})
        (path,) = root.glob("artifacts/tokenizers/*/weights.safetensors")
        found.append((path.parent.name, path.read_bytes(), {record.name for record in root.glob("records/*.json")}))
    assert found[0] == found[1]
