"""Stores at addresses: the batches of a store in a folder, bit for bit, and each fault a sentence."""

import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.data.latents.conftest import CONTENTS
from tests.http_server import RangeServer, break_off, fail, serve, stall
from torch.utils.data import DataLoader

from ldbench.data.latents.manifest import MANIFEST, PLAN, Manifest, is_complete
from ldbench.data.latents.places import Address, open_address
from ldbench.data.latents.store import LatentStore, StoredLatents
from ldbench.io import remote
from ldbench.io.files import file_digest
from ldbench.io.remote import Unreachable
from ldbench.training.batch_sampler import BatchStream
from ldbench.training.read_ahead import ReadAhead

Make = Callable[..., Manifest]
ROWS = torch.randperm(100, generator=torch.Generator().manual_seed(0))  # of 50 images, also mirrored
SHARD = 16 * 2 * (2 * 4 * 48 * 4 + 8) + 200  # bytes, about
NOTHING, SOME, ALL = None, 2.5 * SHARD / 1e9, 1.0  # GB of the cache


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.01)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RangeServer]:
    (tmp_path / "served").mkdir()
    with serve(tmp_path / "served") as server:
        yield server


@pytest.fixture
def at(tmp_path: Path) -> Callable[..., Address]:
    """Opens an address; `cache_size` None: without a cache."""

    def at(address: str, *, cache_size: float | None = ALL, **changes: Any) -> Address:
        settings = {"retries": 2, "timeout": 10, "ahead": 4, "cache_size": cache_size or 0.0}
        cache = None if cache_size is None else tmp_path / "cache"
        return open_address(address, cache_dir=cache, **{**settings, **changes})

    return at


@pytest.fixture
def written(make: Make, at: Callable[..., Address], server: RangeServer, tmp_path: Path) -> str:
    """The address of a store that was written over HTTP; the same one is in the folder `local`."""
    make(tmp_path / "local", flips=True)
    make(at(f"{server.address}/store"), flips=True)
    return f"{server.address}/store"


def wait_until_whole(store: LatentStore, count: int) -> None:
    for _ in range(500):
        if len(store.shards.reading.mapped) >= count:
            return
        threading.Event().wait(0.02)
    pytest.fail("shards were not fetched")


def equal(ours: tuple[torch.Tensor, ...], theirs: tuple[torch.Tensor, ...]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_the_shards_at_an_address_are_those_in_a_folder(written, server, tmp_path) -> None:
    local, there = tmp_path / "local", server.folder / "store"
    for path in local.glob("*.safetensors"):
        assert file_digest(path) == file_digest(there / path.name)
    assert is_complete(there)
    assert LatentStore.open(local).manifest.contents == LatentStore.open(there).manifest.contents


@pytest.mark.parametrize("cache_size", [NOTHING, SOME, ALL])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_batches_are_those_of_a_folder_for_every_size_of_the_cache(make, at, server, tmp_path, cache_size, dtype):
    make(tmp_path / "local", flips=True, dtype=dtype)
    address = f"{server.address}/store"
    make(at(address), flips=True, dtype=dtype)
    local, store = LatentStore.open(tmp_path / "local"), LatentStore.open(at(address, cache_size=cache_size))
    for rows in ROWS.split(7):
        assert equal(store.read(rows), local.read(rows))
        assert equal(store.batch(rows, seed=3, step=5), local.batch(rows, seed=3, step=5))
    assert torch.equal(store.labels, local.labels)
    ours, theirs = (each.resident(torch.device("cpu")) for each in (store, local))
    assert equal(ours.batch(ROWS, seed=3, step=5), theirs.batch(ROWS, seed=3, step=5))


@pytest.mark.parametrize("address", ["memory://latents-test", "file"])
def test_a_store_is_written_to_other_protocols(make, at, tmp_path, address) -> None:
    address = f"file://{tmp_path}/some/folder" if address == "file" else address
    make(tmp_path / "local")
    make(at(address))
    ours, theirs = LatentStore.open(at(address)), LatentStore.open(tmp_path / "local")
    assert at(address).files.list("*.json") == [MANIFEST], "notes are removed"
    assert equal(ours.read(ROWS[ROWS < 50]), theirs.read(ROWS[ROWS < 50]))


def test_the_second_time_nothing_is_sent_but_the_manifest(written, at, server) -> None:
    store = LatentStore.open(at(written))
    store.read(ROWS)
    wait_until_whole(store, 4)
    assert LatentStore.open(at(written)).manifest.num_images == 50
    before = server.sent
    again = LatentStore.open(at(written))
    again.read(ROWS)
    assert server.sent - before == (server.folder / "store" / MANIFEST).stat().st_size


def test_as_many_shards_are_held_as_fit_into_the_cache(written, at, server, tmp_path) -> None:
    store = LatentStore.open(at(written, cache_size=SOME))
    assert store.shards.num_held == 2
    store.read(ROWS)
    wait_until_whole(store, 2)
    assert sum(path.stat().st_size for path in tmp_path.glob("cache/shards/*/*.whole")) <= SOME * 1e9
    server.requests.clear()
    store.read(torch.arange(32))
    assert not server.requests
    store.read(torch.arange(32, 40))
    assert server.requests["GET", "shard-00002.safetensors"] == 8, "one range for each row"


def latents_in_order(store: LatentStore, *, ahead: int = 0, workers: int = 0, start: int = 0) -> list[torch.Tensor]:
    """z of the batches of a training, read as a training reads them."""
    stream = BatchStream(
        **{"num_images": len(store), "batch_size": 12, "num_batches": 20, "seed": 1, "start": lambda: start},
        **{"rank": 0, "world": 1, "overfit_batches": 0, "count_passes": True},
    )
    items: Any = StoredLatents(store, seed=7)
    if ahead:
        items = ReadAhead(items, batches=ahead)
    order: Any = items.order(stream) if ahead else stream
    loader = DataLoader(items, batch_sampler=order, collate_fn=lambda batch: batch, num_workers=workers)
    try:
        return [part for batch in loader for part in batch]
    finally:
        if ahead:
            items.close()


@pytest.mark.parametrize("cache_size", [NOTHING, SOME, ALL])
def test_reading_ahead_and_workers_change_no_batch(written, at, tmp_path, cache_size) -> None:
    expected = latents_in_order(LatentStore.open(tmp_path / "local"))
    for settings in ({"ahead": 1}, {"ahead": 5}, {"workers": 2}):
        found = latents_in_order(LatentStore.open(at(written, cache_size=cache_size)), **settings)
        assert equal(tuple(found), tuple(expected))
    rest = latents_in_order(LatentStore.open(at(written, cache_size=cache_size)), ahead=3, start=13)
    assert equal(tuple(rest), tuple(expected[26:]))


class Dies:
    """Images of which one cannot be read."""

    def __init__(self, images: Any, fatal: int):
        self.images = images
        self.fatal = fatal

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        if index == self.fatal:
            raise RuntimeError("the power is gone")
        return self.images[index]


def test_interrupted_encoding_goes_on_from_the_shards_that_are_there(make, at, server, images, tmp_path) -> None:
    address, there = f"{server.address}/store", server.folder / "store"
    with pytest.raises(RuntimeError, match="the power is gone"):
        make(at(address), images=Dies(images, 40))
    assert sorted(path.name for path in there.glob("*.safetensors")) == [
        "shard-00000.safetensors",
        "shard-00001.safetensors",
    ]
    with pytest.raises(ValueError, match=rf"{address} is not a complete store of latents.* to resume"):
        LatentStore.open(at(address))
    server.requests.clear()
    make(at(address))
    assert server.requests["PUT", "shard-00000.safetensors"] == server.requests["PUT", "shard-00001.safetensors"] == 0
    make(tmp_path / "local")
    assert equal(LatentStore.open(at(address)).read(ROWS // 2), LatentStore.open(tmp_path / "local").read(ROWS // 2))


def test_a_store_of_other_settings_is_refused(make, at, server, images, written) -> None:
    with pytest.raises(RuntimeError):
        make(at(f"{server.address}/half"), images=Dies(images, 40))
    with pytest.raises(ValueError, match=r"half was started with other settings: shard_size was 16, and now is 8"):
        make(at(f"{server.address}/half"), shard_size=8)
    with pytest.raises(ValueError, match=r"The latents in http.* are not those requested: the data is"):
        LatentStore.open(at(written), contents=replace(CONTENTS, flips=True, fingerprint="cd" * 32))


def test_where_nothing_may_be_written_that_is_said_before_anything_is_encoded(make, at, server, images) -> None:
    server.faults.append(fail(99, status=403, of=PLAN))
    with pytest.raises(Unreachable, match=r"plan\.json refuses \(1 try.*credentials"):
        make(at(f"{server.address}/store"), images=Dies(images, 0))


def test_a_folder_that_may_not_be_written_is_a_sentence(make, at, tmp_path, images) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Unreachable, match=r"plan\.json"):
        make(at(f"file://{tmp_path}/file/store", retries=0), images=Dies(images, 0))


def altered(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))


def read_often(store: LatentStore) -> None:
    for _ in range(500):  # the row, or the whole shard in the background
        store.read(torch.arange(50, 100))
        threading.Event().wait(0.01)


@pytest.mark.parametrize("cache_size", [NOTHING, SOME, ALL])
def test_a_shard_that_changed_is_refused_when_it_is_read(written, at, server, cache_size) -> None:
    altered(server.folder / "store" / "shard-00001.safetensors")
    store = LatentStore.open(at(written, cache_size=cache_size))
    with pytest.raises(ValueError, match=r"shard-00001\.safetensors was altered: its checksum differs"):
        read_often(store)
    with pytest.raises(ValueError, match=r"shard-00001\.safetensors was altered"):
        store.resident(torch.device("cpu"))


def test_checksums_of_rows_that_changed_are_refused(written, at, server) -> None:
    altered(server.folder / "store" / "shard-00001.rows")
    with pytest.raises(ValueError, match=r"shard-00001\.rows was altered"):
        LatentStore.open(at(written, cache_size=NOTHING)).read(ROWS)


def test_what_is_missing_is_named_at_the_start(written, at, server) -> None:
    path = server.folder / "store" / "shard-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"shard-00002\.safetensors has \d+ bytes, but its manifest has"):
        LatentStore.open(at(written))
    path.unlink()
    with pytest.raises(ValueError, match=r"shard-00002\.safetensors is missing"):
        LatentStore.open(at(written))
    (server.folder / "store" / MANIFEST).write_text("{")
    with pytest.raises(ValueError, match=r"manifest\.json is not a manifest of latents"):
        LatentStore.open(at(written))
    (server.folder / "store" / MANIFEST).unlink()
    with pytest.raises(ValueError, match=r"is not a complete store of latents: it has no manifest\.json"):
        LatentStore.open(at(written))


@pytest.mark.parametrize("fault", [fail(3), break_off(3)])
def test_requests_that_fail_are_repeated(written, at, server, tmp_path, fault) -> None:
    store = LatentStore.open(at(written, cache_size=NOTHING, retries=4))
    server.faults.append(fault)
    assert equal(store.read(ROWS), LatentStore.open(tmp_path / "local").read(ROWS))


@pytest.mark.parametrize("cache_size", [NOTHING, ALL])
def test_an_address_that_stops_answering_is_a_sentence_and_goes_on_later(written, at, server, cache_size) -> None:
    store = LatentStore.open(at(written, cache_size=cache_size, timeout=0.3, retries=1))
    release = threading.Event()
    server.faults.append(stall(release))
    try:
        with pytest.raises(Unreachable, match=r"does not answer \(2 tries, .* goes on once it answers"):
            latents_in_order(store, ahead=3)
    finally:
        release.set()
    server.faults.clear()
    again = LatentStore.open(at(written, cache_size=cache_size))  # with time enough for a busy machine
    assert len(latents_in_order(again, ahead=3)) == 40


def test_a_copy_of_a_folder_is_read_whole_or_refused(make, at, server, tmp_path) -> None:
    make(tmp_path / "local", flips=True)
    shutil.copytree(tmp_path / "local", server.folder / "copy")
    address = f"{server.address}/copy"
    with pytest.raises(ValueError, match=r"was copied from a folder.*do not fit into the cache.*latents\.cache_size"):
        LatentStore.open(at(address, cache_size=SOME))
    store, local = LatentStore.open(at(address)), LatentStore.open(tmp_path / "local")
    assert equal(store.read(ROWS), local.read(ROWS))
    assert torch.equal(store.labels, local.labels)


def test_a_shard_that_was_damaged_in_the_cache_is_fetched_again(written, at, tmp_path) -> None:
    store = LatentStore.open(at(written))
    expected = store.read(ROWS)
    wait_until_whole(store, 4)
    altered(next(tmp_path.glob("cache/shards/*/*.whole")))
    again = LatentStore.open(at(written))
    assert equal(again.read(ROWS), expected)


def test_a_cache_that_cannot_be_written_is_done_without(written, at, tmp_path, caplog) -> None:
    (tmp_path / "cache").rename(tmp_path / "moved") if (tmp_path / "cache").exists() else None
    (tmp_path / "cache").write_text("no folder")
    store, local = LatentStore.open(at(written)), LatentStore.open(tmp_path / "local")
    for rows in ROWS.split(20):
        assert equal(store.read(rows), local.read(rows))
    assert "No more shards" in caplog.text


def test_a_store_in_memory_is_of_one_process(make, at) -> None:
    make(at("memory://latents-of-one"))
    items = StoredLatents(LatentStore.open(at("memory://latents-of-one")), seed=0)
    for start in ("fork", "spawn"):
        with pytest.raises(ValueError, match="in the memory of one process"):
            list(DataLoader(items, batch_size=5, num_workers=1, multiprocessing_context=start))


def test_a_store_in_s3(make, at, tmp_path, monkeypatch) -> None:
    """Needs the extra `test-s3`: a server of moto on this machine."""
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'ldbench[test-s3]'")
    moto = pytest.importorskip("moto.server", reason="moto is not installed: pip install 'ldbench[test-s3]'")
    server = moto.ThreadedMotoServer(port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem(skip_instance_cache=True).mkdir("bucket")
        make(at("s3://bucket/store"), flips=True)
        make(tmp_path / "local", flips=True)
        local = LatentStore.open(tmp_path / "local")
        for cache_size in (NOTHING, ALL):
            store = LatentStore.open(at("s3://bucket/store", cache_size=cache_size))
            assert equal(store.read(ROWS), local.read(ROWS))
        assert not at("s3://bucket/store").files.list("shard-*.json"), "notes are removed"
        with pytest.raises(Unreachable):
            make(at("s3://no-such-bucket/store"))
    finally:
        server.stop()
