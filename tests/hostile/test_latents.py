"""Stores and caches of latents by strangers, whose sums fit what they changed."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ldbench.core.latent import LatentSpec
from ldbench.data.latents import lightningdit
from ldbench.data.latents.manifest import MANIFEST, PLAN, Contents
from ldbench.data.latents.store import LatentStore
from ldbench.data.latents.writing import StoreWriter
from ldbench.io.files import file_digest

SAID: dict[str, Any] = {
    "tokenizer": "vmae-01234567",
    "tokenizer_digest": "01234567",
    "data": "digits",
    "num_classes": 10,
    "fingerprint": "ab",
}
SAID |= {"split": "train", "preprocessing": {}, "flips": False, "dtype": "fp32", "precision": "fp32"}
LATENT = LatentSpec(4, 3, (2, 2))


def writer_of(folder: Path) -> StoreWriter:
    return StoreWriter(folder, Contents(**SAID), latent=LATENT, num_images=5, shard_size=3)


def write(folder: Path, shards: list[int]) -> StoreWriter:
    writer, rng = writer_of(folder), torch.Generator().manual_seed(0)
    for shard in shards:
        count = len(writer.shard_images(shard))
        writer.write(shard, torch.randn(count, 2, 4, 3, generator=rng), torch.arange(count))
    return writer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound store of two shards."""
    write(tmp_path / "store", [0, 1]).finish()
    return tmp_path / "store"


def fitted(folder: Path) -> None:
    """Makes sums and sizes fit the shards."""
    told = json.loads((folder / MANIFEST).read_text())
    for shard in told["shards"]:
        path = folder / shard["file"]
        shard |= {"sha256": file_digest(path), "num_bytes": path.stat().st_size}
    (folder / MANIFEST).write_text(json.dumps(told))


def told(**changed: Any) -> Callable[[Path], None]:
    """Changes the manifest; a dict changes what stands there, key by key."""

    def spoil(folder: Path) -> None:
        numbers = json.loads((folder / MANIFEST).read_text())
        for key, value in changed.items():
            numbers[key] = {**numbers[key], **value} if isinstance(value, dict) else value
        (folder / MANIFEST).write_text(json.dumps(numbers))

    return spoil


def shard(**changed: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        numbers = json.loads((folder / MANIFEST).read_text())
        numbers["shards"][0] |= changed
        (folder / MANIFEST).write_text(json.dumps(numbers))

    return spoil


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "shard-00000.safetensors"
        held = load_file(path)
        change(held)
        save_file(held, path)
        fitted(folder)

    return spoil


def header(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Changes the header of a shard, as no library would write it."""

    def spoil(folder: Path) -> None:
        path = folder / "shard-00000.safetensors"
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        held = json.loads(content[8 : 8 + length])
        held = change(held) or held
        said = json.dumps(held).encode()
        path.write_bytes(len(said).to_bytes(8, "little") + said + content[8 + length :])
        fitted(folder)

    return spoil


def raw(content: bytes) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / "shard-00000.safetensors").write_bytes(content)
        fitted(folder)

    return spoil


def text(content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / MANIFEST).write_text(content)


def piped(folder: Path) -> None:
    (folder / "shard-00000.safetensors").unlink()
    os.mkfifo(folder / "shard-00000.safetensors")


STORES: dict[str, Callable[[Path], object]] = {
    "a manifest nested without end": text("[" * 100_000),
    "a manifest that is a list": text("[]"),
    "a manifest of NaN": text('{"schema": NaN}'),
    "a manifest with a key twice": text('{"schema": 1, "schema": 1}'),
    "a trillion images": told(num_images=10**12, shard_size=1),
    "images without end": told(num_images=10**30),
    "shards of nothing": told(shard_size=0),
    "shards below zero": told(shard_size=-3),
    "images in words": told(num_images="5"),
    "no shards": told(shards=[], num_images=0),
    "a shard that climbs out": shard(file="../../etc/passwd"),
    "a shard of a trillion": shard(num_images=10**12),
    "a shard of seven parts": shard(parts=7),
    "a shard that knows more": shard(__class__="os.system"),
    "a latent of a billion tokens": told(latent={"num_tokens": 10**9, "grid": None}),
    "a latent of no channels": told(latent={"channels": 0}),
    "a grid in words": told(latent={"grid": "ab"}),
    "statistics of other channels": told(
        statistics={"mean": [0.0], "variance_of_means": [1.0], "mean_variance": [1.0]}
    ),
    "statistics of no number": told(statistics={"mean": "abc"}),
    "a variance below zero": told(statistics={"variance_of_means": [-1.0] * 3}),
    "statistics that do not fit": told(statistics={"mean": [5.0] * 3}),
    "statistics nested": told(statistics={"mean": [[[1.0]]]}),
    "labels outside of the classes": tensors(lambda held: held["labels"].fill_(10**9)),
    "labels below zero": tensors(lambda held: held["labels"].fill_(-1)),
    "labels of floats": tensors(lambda held: held.update(labels=held["labels"].float())),
    "moments of another dtype": tensors(lambda held: held.update(moments=held["moments"].bfloat16())),
    "moments of fewer rows": tensors(lambda held: held.update(moments=held["moments"][:1].clone())),
    "a shard without labels": tensors(lambda held: held.pop("labels")),
    "offsets below zero": header(lambda held: held["moments"].update(data_offsets=[-8, 4])),
    "offsets behind the end": header(lambda held: held["moments"].update(data_offsets=[10**15, 10**15 + 4])),
    "offsets that overflow": header(lambda held: held["moments"].update(data_offsets=[10**30, 10**30])),
    "offsets in words": header(lambda held: held["moments"].update(data_offsets=["0", "4"])),
    "no offsets": header(lambda held: held["moments"].update(data_offsets=[])),
    "a shape in words": header(lambda held: held["moments"].update(shape="all")),
    "a header that is a list": header(lambda held: ["moments", "labels"]),
    "a header nested without end": raw((200_000).to_bytes(8, "little") + b"[" * 200_000),
    "an endless header": raw((1 << 60).to_bytes(8, "little")),
    "a pickle": raw(b"\x80\x04cposix\nsystem\n."),
    "nothing": raw(b""),
    "a pipe": piped,
}


@pytest.mark.parametrize("spoil", STORES.values(), ids=STORES.keys())
def test_a_store(spoil: Callable[[Path], object], folder: Path, refused) -> None:
    LatentStore.open(folder)
    spoil(folder)
    refused(lambda: LatentStore.open(folder), folder)


BEGUN: dict[str, Callable[[Path], object]] = {
    "a plan that is a list": lambda folder: (folder / PLAN).write_text("[1]"),
    "a plan that is no JSON": lambda folder: (folder / PLAN).write_text("{"),
    "a plan of something else": lambda folder: (folder / PLAN).write_text("{}"),
    "a note that is a list": lambda folder: (folder / "shard-00000.json").write_text("[]"),
    "a note that is no JSON": lambda folder: (folder / "shard-00000.json").write_text("{"),
    "a note that says nothing": lambda folder: (folder / "shard-00000.json").write_text("{}"),
    "a note in another alphabet": lambda folder: (folder / "shard-00000.json").write_bytes(b"\xff\xfe"),
}


@pytest.mark.parametrize("spoil", BEGUN.values(), ids=BEGUN.keys())
def test_a_store_that_was_begun(spoil: Callable[[Path], object], tmp_path: Path, refused) -> None:
    write(tmp_path, [0])
    assert writer_of(tmp_path).missing() == [1]
    spoil(tmp_path)
    refused(lambda: writer_of(tmp_path).missing(), tmp_path)


def cached(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "latents_rank00_shard000.safetensors"
        held = load_file(path)
        change(held)
        save_file(held, path)

    return spoil


CACHES: dict[str, Callable[[Path], object]] = {
    "labels in two axes": cached(lambda held: held.update(labels=torch.zeros(5, 1, dtype=torch.int64))),
    "labels of floats": cached(lambda held: held.update(labels=torch.zeros(5))),
    "labels outside of the classes": cached(lambda held: held["labels"].fill_(99)),
    "no labels": cached(lambda held: held.pop("labels")),
    "no mirrored latents": cached(lambda held: held.pop("latents_flip")),
    "latents of another map": cached(lambda held: held.update(latents=torch.zeros(5, 3, 4, 4))),
    "latents of fewer images": cached(lambda held: held.update(latents=torch.zeros(4, 3, 2, 2))),
    "latents of NaN": cached(lambda held: held["latents"].fill_(float("nan"))),
    "latents of whole numbers": cached(lambda held: held.update(latents=torch.zeros(5, 3, 2, 2, dtype=torch.int64))),
    "a pickle": lambda folder: (folder / "latents_rank00_shard000.safetensors").write_bytes(
        b"\x80\x04cposix\nsystem\n."
    ),
    "no files": lambda folder: (folder / "latents_rank00_shard000.safetensors").unlink(),
    "a folder for a file": lambda folder: (folder / "latents_rank00_shard001.safetensors").mkdir(),
}


@pytest.mark.parametrize("spoil", CACHES.values(), ids=CACHES.keys())
def test_a_cache(spoil: Callable[[Path], object], tmp_path: Path, refused) -> None:
    cache, place = tmp_path / "cache", tmp_path / "store"
    cache.mkdir()
    latents = {"latents": torch.zeros(5, 3, 2, 2), "latents_flip": torch.zeros(5, 3, 2, 2), "labels": torch.arange(5)}
    save_file(latents, cache / "latents_rank00_shard000.safetensors")
    spoil(cache)
    refused(lambda: lightningdit.read_cache(cache, place, Contents(**SAID, source="00"), latent=LATENT, shard_size=3))
    assert not (place / MANIFEST).exists()


class Payload:
    """Unpickles as a call."""

    def __init__(self, trap: Path):
        self.trap = trap

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.trap}",)


ONES = torch.ones(1, 3, 1, 1)
STATISTICS: dict[str, Callable[[Path], object]] = {
    "a payload": lambda trap: {"mean": Payload(trap), "std": ONES},
    "NaN": lambda trap: {"mean": ONES * float("nan"), "std": ONES},
    "a deviation of zero": lambda trap: {"mean": ONES, "std": ONES * 0},
    "an infinite deviation": lambda trap: {"mean": ONES, "std": ONES * float("inf")},
    "one number repeated": lambda trap: {
        "mean": torch.zeros(1).expand(1, 10**9, 1, 1),
        "std": torch.ones(1).expand(1, 10**9, 1, 1),
    },
    "a list": lambda trap: [ONES, ONES],
    "no deviation": lambda trap: {"mean": ONES},
    "numbers": lambda trap: {"mean": 1.0, "std": 2.0},
    "another shape": lambda trap: {"mean": ONES.flatten(), "std": ONES.flatten()},
}


@pytest.mark.parametrize("content", STATISTICS.values(), ids=STATISTICS.keys())
def test_statistics(content: Callable[[Path], object], tmp_path: Path, trap: Path, refused) -> None:
    torch.save(content(trap), tmp_path / "latents_stats.pt")
    refused(lambda: lightningdit.read_stats(tmp_path), tmp_path)
