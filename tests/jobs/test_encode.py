"""Job `encode`: stores are built once, reused, and described by metrics."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from safetensors.torch import load_file

import ldbench
from ldbench.config.components import instantiate
from ldbench.data.latents.store import LatentStore
from ldbench.io.files import file_digest
from ldbench.jobs.encode import Encode
from ldbench.pipeline import pipeline
from ldbench.results import records

Compose = Callable[..., DictConfig]


@pytest.fixture
def encode(small_overrides: list[str], tmp_path: Path, already: Callable[..., Path]) -> Callable[..., Path]:
    """Runs the job on a tiny VMAE, which is there already; returns the folder of stores."""
    already()

    def encode(*overrides: str) -> Path:
        cfg = ldbench.compose(
            "run", [*small_overrides, f"paths.root={tmp_path}", "job=encode", "job.shard_size=64", *overrides]
        )
        pipeline.run(cfg)
        return tmp_path / "artifacts" / "latents"

    return encode


def contents_of(folder: Path) -> dict[str, tuple[str, int]]:
    return {
        str(path.relative_to(folder)): (file_digest(path), path.stat().st_mtime_ns)
        for path in folder.rglob("[!.]*")
        if path.is_file()
    }


def only_record(root: Path) -> records.Record:
    (path,) = (root / "records").glob("encode-*.json")
    return records.read(path)


def test_it_stores_the_posterior_of_every_training_image(encode: Callable[..., Path], tmp_path: Path) -> None:
    (folder,) = (path for path in encode("job.dtype=fp32").iterdir() if path.is_dir())
    assert folder.name.startswith("vmae-digits-train-")
    store = LatentStore.open(folder)
    (tokenizer,) = (tmp_path / "artifacts" / "tokenizers").glob("vmae-*[0-9a-f]")
    assert store.manifest.contents.tokenizer == tokenizer.name
    images = instantiate(ldbench.compose("run", ["data.subset=0.1"]).data).train
    assert len(store) == len(images)
    x, y = zip(*(images[i] for i in range(len(images))), strict=True)
    with torch.no_grad():
        expected = ldbench.load(tokenizer).encode(torch.stack(x))
    moments, labels = store.read(torch.arange(len(store)))
    torch.testing.assert_close(moments, torch.stack([expected.mean, expected.logvar], dim=1), rtol=1e-4, atol=1e-5)
    assert labels.tolist() == list(y)
    metrics = only_record(tmp_path).metrics
    assert metrics["latents/train/images"].value == len(images)
    assert metrics["latents/train/bytes"].value == store.manifest.num_bytes
    std = store.manifest.statistics.std()
    assert metrics["latents/train/std_max"].value == std.max().item()
    assert metrics["latents/train/std"].value == store.manifest.statistics.overall().std().item()
    ratio = store.manifest.statistics.signal_to_noise()
    assert metrics["latents/train/signal_to_noise_median"].value == ratio.median().item()


def test_the_second_time_it_reuses_the_store_and_logs_its_path(
    encode: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = encode("job.heldout=true")
    before = contents_of(folder)
    caplog.set_level(logging.INFO)
    encode("job.heldout=true", "job.batch_size=7", "trainer.workers=0")
    assert "job encode was measured already" in caplog.text
    for split in ("train", "test"):
        (store,) = folder.glob(f"vmae-digits-{split}-*")
        assert str(store) in caplog.text
    caplog.clear()
    encode("job.heldout=true", "force=true")
    assert "Latents of the test split already exist" in caplog.text
    assert contents_of(folder) == before


def test_a_removed_store_is_rebuilt_although_its_record_exists(encode: Callable[..., Path], tmp_path: Path) -> None:
    import shutil

    folder = encode()
    before = {name: digest for name, (digest, _) in contents_of(folder).items()}
    shutil.rmtree(folder)
    encode()
    assert {name: digest for name, (digest, _) in contents_of(folder).items()} == before
    assert only_record(tmp_path)


def test_only_settings_that_change_numbers_create_another_store(encode: Callable[..., Path]) -> None:
    encode()
    encode("job.batch_size=16")
    folder = encode("job.dtype=bf16")
    encode("data.subset=0.2")
    stores = [path for path in folder.iterdir() if path.is_dir()]
    assert len(stores) == 3
    assert {LatentStore.open(store).manifest.contents.dtype for store in stores} == {"fp16", "bf16"}


def test_a_store_of_lightningdit_comes_back_as_latents(encode: Callable[..., Path], tmp_path: Path) -> None:
    first = encode(f"job.export={tmp_path / 'cache'}")
    (built,) = first.glob("vmae-digits-train-????????")
    assert (tmp_path / "cache" / "latents_stats.pt").is_file()
    encode(f"job.cache={tmp_path / 'cache'}", "job.dtype=fp32")
    (converted,) = (path for path in first.glob("vmae-digits-train-????????") if path != built)
    ours, theirs = LatentStore.open(built), LatentStore.open(converted)
    assert theirs.manifest.parts == 1
    rows = range(len(ours))
    for one, other in zip(ours.batch(rows, seed=0, step=0), theirs.batch(rows, seed=9, step=9), strict=True):
        assert torch.equal(one, other)


def test_an_export_is_measured_again_where_its_folder_holds_another(
    encode: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    caplog.set_level(logging.INFO)
    export = f"job.export={tmp_path / 'cache'}"
    encode(export)
    before = contents_of(tmp_path / "cache")
    (latents,) = (tmp_path / "cache").glob("*.safetensors")
    num_images = len(load_file(latents)["labels"])
    encode(export)
    assert "job encode was measured already" in caplog.text
    assert contents_of(tmp_path / "cache") == before
    with monkeypatch.context() as patched:
        patched.setattr(Encode, "store", lambda *_: pytest.fail("encodes first"))
        with pytest.raises(ValueError, match=r"cache holds other files than the latents of vmae-\w+ and digits"):
            encode(export, "data.subset=0.2")
    shutil.rmtree(tmp_path / "cache")
    encode(export, "data.subset=0.2")
    assert len(load_file(latents)["labels"]) > num_images
    with pytest.raises(ValueError, match="cache holds other files"):
        encode(export)
    shutil.rmtree(tmp_path / "cache")
    encode(export)
    assert contents_of(tmp_path / "cache").keys() == before.keys()
    assert len(load_file(latents)["labels"]) == num_images


def test_an_altered_store_is_refused(encode: Callable[..., Path]) -> None:
    (folder,) = (path for path in encode().iterdir() if path.is_dir())
    path = folder / "shard-00000.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match=r"shard-00000\.safetensors was altered"):
        encode("force=true")
    encode("force=true", "job.verify=false")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["job.dtype=fp8"], r"job\.dtype must be one of bf16, fp16, fp32, got 'fp8'"),
        (["job.shard_size=0"], r"job\.shard_size must be at least 1"),
        (["job.batch_size=0"], r"job\.batch_size must be at least 1"),
        (["job.cache=/nowhere"], r"job\.cache=/nowhere is not a folder"),
        ([f"job.export={__file__}"], r"job\.export=.*test_encode\.py is a file\. Give a folder"),
    ],
)
def test_settings_out_of_range_are_refused_before_any_work(
    encode: Callable[..., Path], overrides: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "get_tokenizer", lambda *_: pytest.fail("work started"))
    with pytest.raises(ValueError, match=message):
        encode(*overrides)


def test_digits_are_not_flipped_and_shapes_are(encode: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"A flipped image of digits may belong to another class, or to none\. Set latents\.flips=false, or",
    ):
        encode("job.flips=true")
    settings = (
        "data=shapes",
        "data.num_train=16",
        "data.num_test=8",
        "data.subset=null",
        "tokenizer=identity",
        "job.flips=true",
    )
    cfg = ldbench.compose("run", [*settings, f"paths.root={tmp_path}", "protocol=default", "job=encode"])
    pipeline.run(cfg)
    (folder,) = (tmp_path / "artifacts" / "latents").glob("identity-shapes-train-????????")
    assert len(LatentStore.open(folder)) == 32


def command(root: Path, *overrides: str) -> list[str]:
    settings = [
        "tokenizer=identity",
        "data=shapes",
        "data.num_train=1500",
        "job=encode",
        "job.shard_size=50",
        "job.batch_size=10",
        f"paths.root={root}",
    ]
    return [sys.executable, "-m", "ldbench.run", *settings, "trainer.accelerator=cpu", *overrides]


def run(root: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
    return subprocess.run(command(root), capture_output=True, text=True, check=True, env=environment)


def file_digests(root: Path) -> dict[str, Any]:
    return {
        name: digest
        for name, (digest, _) in contents_of(root / "artifacts" / "latents").items()
        if not name.endswith(".lock")
    }


@pytest.mark.slow
def test_killed_on_the_command_line_the_same_command_ends_in_the_same_bytes(tmp_path: Path) -> None:
    assert "Latents of 1500 train images" in run(tmp_path / "unbroken").stdout
    root = tmp_path / "broken"
    for _ in range(2):
        before = len(list(root.rglob("shard-*.json")))
        child = subprocess.Popen(command(root), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while (
            child.poll() is None and len(list(root.rglob("shard-*.json"))) <= before + 2 and time.monotonic() < deadline
        ):
            time.sleep(0.001)
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    assert not list(root.rglob("latents/*/manifest.json"))
    assert len(list(root.rglob("shard-*.json"))) >= 6
    run(root)
    assert file_digests(root) == file_digests(tmp_path / "unbroken")
    assert (records_of(root),) == (records_of(tmp_path / "unbroken"),)
    assert "measured already" in run(root).stdout


def records_of(root: Path) -> Any:
    record = only_record(root)
    return record.id, record.metrics
