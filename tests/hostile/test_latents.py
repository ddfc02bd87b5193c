"""Untrusted stores and caches of latents with consistent checksums."""

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

CONTENTS: dict[str, Any] = {
    "tokenizer": "vmae-01234567",
    "tokenizer_digest": "01234567",
    "tokenizer_key": "01234567",
    "data": "digits",
    "num_classes": 10,
    "fingerprint": "ab",
}
CONTENTS |= {"split": "train", "preprocessing": {}, "flips": False, "dtype": "fp32", "precision": "fp32"}
LATENT = LatentSpec(4, 3, (2, 2))


def writer_of(folder: Path) -> StoreWriter:
    return StoreWriter(folder, Contents(**CONTENTS), latent=LATENT, num_images=5, shard_size=3)


def write(folder: Path, shards: list[int]) -> StoreWriter:
    writer, rng = writer_of(folder), torch.Generator().manual_seed(0)
    for shard in shards:
        count = len(writer.shard_images(shard))
        writer.write(shard, torch.randn(count, 2, 4, 3, generator=rng), torch.arange(count))
    return writer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A valid store of two shards."""
    write(tmp_path / "store", [0, 1]).finish()
    return tmp_path / "store"


def update_checksums(folder: Path) -> None:
    """Updates checksums and sizes of the shards."""
    numbers = json.loads((folder / MANIFEST).read_text())
    for shard in numbers["shards"]:
        path = folder / shard["file"]
        shard |= {"sha256": file_digest(path), "num_bytes": path.stat().st_size}
    (folder / MANIFEST).write_text(json.dumps(numbers))


def manifest(**changed: Any) -> Callable[[Path], None]:
    """Changes the manifest; a dict updates the existing one key by key."""

    def damage(folder: Path) -> None:
        numbers = json.loads((folder / MANIFEST).read_text())
        for key, value in changed.items():
            numbers[key] = {**numbers[key], **value} if isinstance(value, dict) else value
        (folder / MANIFEST).write_text(json.dumps(numbers))

    return damage


def shard(**changed: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        numbers = json.loads((folder / MANIFEST).read_text())
        numbers["shards"][0] |= changed
        (folder / MANIFEST).write_text(json.dumps(numbers))

    return damage


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "shard-00000.safetensors"
        values = load_file(path)
        change(values)
        save_file(values, path)
        update_checksums(folder)

    return damage


def header(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Changes the header of a shard, as no library would write it."""

    def damage(folder: Path) -> None:
        path = folder / "shard-00000.safetensors"
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        values = json.loads(content[8 : 8 + length])
        values = change(values) or values
        encoded = json.dumps(values).encode()
        path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + content[8 + length :])
        update_checksums(folder)

    return damage


def raw(content: bytes) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / "shard-00000.safetensors").write_bytes(content)
        update_checksums(folder)

    return damage


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
    "a trillion images": manifest(num_images=10**12, shard_size=1),
    "images without end": manifest(num_images=10**30),
    "shards of nothing": manifest(shard_size=0),
    "shards below zero": manifest(shard_size=-3),
    "images in words": manifest(num_images="5"),
    "no shards": manifest(shards=[], num_images=0),
    "a shard that climbs out": shard(file="../../etc/passwd"),
    "a shard of a trillion": shard(num_images=10**12),
    "a shard of seven parts": shard(parts=7),
    "a shard that knows more": shard(__class__="os.system"),
    "a latent of a billion tokens": manifest(latent={"num_tokens": 10**9, "grid": None}),
    "a latent of no channels": manifest(latent={"channels": 0}),
    "a grid in words": manifest(latent={"grid": "ab"}),
    "statistics of other channels": manifest(
        statistics={"mean": [0.0], "variance_of_means": [1.0], "mean_variance": [1.0]}
    ),
    "statistics of no number": manifest(statistics={"mean": "abc"}),
    "a variance below zero": manifest(statistics={"variance_of_means": [-1.0] * 3}),
    "statistics that do not fit": manifest(statistics={"mean": [5.0] * 3}),
    "statistics nested": manifest(statistics={"mean": [[[1.0]]]}),
    "labels outside of the classes": tensors(lambda values: values["labels"].fill_(10**9)),
    "labels below zero": tensors(lambda values: values["labels"].fill_(-1)),
    "labels of floats": tensors(lambda values: values.update(labels=values["labels"].float())),
    "moments of another dtype": tensors(lambda values: values.update(moments=values["moments"].bfloat16())),
    "moments of fewer rows": tensors(lambda values: values.update(moments=values["moments"][:1].clone())),
    "a shard without labels": tensors(lambda values: values.pop("labels")),
    "offsets below zero": header(lambda values: values["moments"].update(data_offsets=[-8, 4])),
    "offsets behind the end": header(lambda values: values["moments"].update(data_offsets=[10**15, 10**15 + 4])),
    "offsets that overflow": header(lambda values: values["moments"].update(data_offsets=[10**30, 10**30])),
    "offsets in words": header(lambda values: values["moments"].update(data_offsets=["0", "4"])),
    "no offsets": header(lambda values: values["moments"].update(data_offsets=[])),
    "a shape in words": header(lambda values: values["moments"].update(shape="all")),
    "a header that is a list": header(lambda values: ["moments", "labels"]),
    "a header nested without end": raw((200_000).to_bytes(8, "little") + b"[" * 200_000),
    "an endless header": raw((1 << 60).to_bytes(8, "little")),
    "a pickle": raw(b"\x80\x04cposix\nsystem\n."),
    "nothing": raw(b""),
    "a pipe": piped,
}


@pytest.mark.parametrize("damage", STORES.values(), ids=STORES.keys())
def test_a_store(damage: Callable[[Path], object], folder: Path, refused) -> None:
    LatentStore.open(folder)
    damage(folder)
    refused(lambda: LatentStore.open(folder), folder)


STARTED: dict[str, Callable[[Path], object]] = {
    "a plan that is a list": lambda folder: (folder / PLAN).write_text("[1]"),
    "a plan that is no JSON": lambda folder: (folder / PLAN).write_text("{"),
    "a plan of something else": lambda folder: (folder / PLAN).write_text("{}"),
    "a note that is a list": lambda folder: (folder / "shard-00000.json").write_text("[]"),
    "a note that is no JSON": lambda folder: (folder / "shard-00000.json").write_text("{"),
    "a note that says nothing": lambda folder: (folder / "shard-00000.json").write_text("{}"),
    "a note in another alphabet": lambda folder: (folder / "shard-00000.json").write_bytes(b"\xff\xfe"),
}


@pytest.mark.parametrize("damage", STARTED.values(), ids=STARTED.keys())
def test_a_store_that_was_started(damage: Callable[[Path], object], tmp_path: Path, refused) -> None:
    write(tmp_path, [0])
    assert writer_of(tmp_path).missing() == [1]
    damage(tmp_path)
    refused(lambda: writer_of(tmp_path).missing(), tmp_path)


def cached(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "latents_rank00_shard000.safetensors"
        values = load_file(path)
        change(values)
        save_file(values, path)

    return damage


CACHES: dict[str, Callable[[Path], object]] = {
    "labels in two axes": cached(lambda values: values.update(labels=torch.zeros(5, 1, dtype=torch.int64))),
    "labels of floats": cached(lambda values: values.update(labels=torch.zeros(5))),
    "labels outside of the classes": cached(lambda values: values["labels"].fill_(99)),
    "no labels": cached(lambda values: values.pop("labels")),
    "no mirrored latents": cached(lambda values: values.pop("latents_flip")),
    "latents of another map": cached(lambda values: values.update(latents=torch.zeros(5, 3, 4, 4))),
    "latents of fewer images": cached(lambda values: values.update(latents=torch.zeros(4, 3, 2, 2))),
    "latents of NaN": cached(lambda values: values["latents"].fill_(float("nan"))),
    "latents of whole numbers": cached(
        lambda values: values.update(latents=torch.zeros(5, 3, 2, 2, dtype=torch.int64))
    ),
    "a pickle": lambda folder: (folder / "latents_rank00_shard000.safetensors").write_bytes(
        b"\x80\x04cposix\nsystem\n."
    ),
    "no files": lambda folder: (folder / "latents_rank00_shard000.safetensors").unlink(),
    "a folder for a file": lambda folder: (folder / "latents_rank00_shard001.safetensors").mkdir(),
}


@pytest.mark.parametrize("damage", CACHES.values(), ids=CACHES.keys())
def test_a_cache(damage: Callable[[Path], object], tmp_path: Path, refused) -> None:
    cache, store_folder = tmp_path / "cache", tmp_path / "store"
    cache.mkdir()
    latents = {"latents": torch.zeros(5, 3, 2, 2), "latents_flip": torch.zeros(5, 3, 2, 2), "labels": torch.arange(5)}
    save_file(latents, cache / "latents_rank00_shard000.safetensors")
    damage(cache)
    refused(
        lambda: lightningdit.read_cache(
            cache, store_folder, Contents(**CONTENTS, source="00"), latent=LATENT, shard_size=3
        )
    )
    assert not (store_folder / MANIFEST).exists()


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
