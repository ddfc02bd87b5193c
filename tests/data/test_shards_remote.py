"""Tar shards at an address: a real HTTP server with ranges and faults; S3 where its packages are installed."""

import multiprocessing
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.data.test_shards import SETTINGS
from tests.http_server import RangeServer, break_off, fail, serve, stall
from tests.small_containers import encoded, samples, write_shards, write_tar
from torch.utils.data import DataLoader

from ldbench.data import shard_index
from ldbench.data.shards import Shards
from ldbench.io import remote
from ldbench.io.block_cache import BLOCK
from ldbench.io.remote import Unreachable


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RangeServer]:
    with serve(write_shards(tmp_path / "served")) as server:
        yield server


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.01)


@pytest.fixture
def shards(tmp_path: Path):
    """Opens shards at an address with a cache of its own."""

    def opened(root: str, **changes) -> Shards:
        return Shards(root=root, **{**SETTINGS, "cache_dir": str(tmp_path / "cache"), "retries": 2, **changes})

    return opened


def items(data: Shards) -> torch.Tensor:
    return torch.stack([data.train[i][0] for i in range(len(data.train))])


def test_shards_at_an_address_are_those_in_a_folder(server, shards):
    local, there = shards(str(server.folder)), shards(server.address)
    assert there.fingerprint == local.fingerprint
    assert torch.equal(items(there), items(local))
    assert torch.equal(there.train.labels, local.train.labels)


def test_shards_may_be_named_where_nothing_is_listed(server, shards):
    server.lists = False
    with pytest.raises(FileNotFoundError, match="does not exist"):
        shards(server.address)
    data = shards(f"{server.address}/train-{{000..001}}.tar")
    assert len(data.train) + len(data.test) == 8
    named = shards(server.address, train_shards="train-{000..001}.tar", test_shards="val-000.tar")
    assert named.fingerprint == shards(str(server.folder)).fingerprint


def test_class_names_are_read_beside_the_shards(server, shards):
    (server.folder / "classes.txt").write_text("cat\ndog\n")
    assert shards(server.address).class_names == ("cat", "dog")


def test_what_was_read_is_read_from_the_cache(server, shards, monkeypatch):
    before = shards(server.address)
    images, sent = items(before), server.sent
    monkeypatch.setattr(shard_index, "read_samples", lambda *_, **__: pytest.fail("reads the shard again"))
    again = shards(server.address)
    assert again.fingerprint == before.fingerprint
    assert torch.equal(items(again), images)
    assert server.sent == sent


def test_a_cache_smaller_than_the_shards_reads_the_same(server, shards, tmp_path):
    big = [encoded(i) + b"\0" * 700_000 for i in range(4)]  # bytes after the image
    members = {}
    for i, content in enumerate(big):
        members |= {f"{i}.png": content, f"{i}.cls": str(i % 2).encode()}
    write_tar(server.folder / "train-000.tar", members)
    data = shards(server.address, cache_size=2.5 * BLOCK / 1e9)
    assert torch.equal(items(data), items(shards(str(server.folder), index="rebuild")))
    stored = sum(path.stat().st_size for path in (tmp_path / "cache" / "blocks").rglob("*.block"))
    assert 0 < stored <= 2.5 * BLOCK


def test_without_a_cache_nothing_is_kept(server, shards, tmp_path, caplog):
    data = shards(server.address, cache_dir=None)
    assert torch.equal(items(data), items(shards(str(server.folder))))
    assert not list((tmp_path / "cache").glob("blocks"))
    assert "is not stored, and built at every start" in caplog.text


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_read_over_connections_of_their_own(server, shards, start):
    data = shards(server.address, cache_dir=None)
    direct = items(data)
    loader = DataLoader(data.train, batch_size=2, num_workers=2, multiprocessing_context=start)
    assert torch.equal(torch.cat([images for images, _ in loader]), direct)
    assert torch.equal(items(data), direct)


def build(address: str, cache: str, results) -> None:
    data = Shards(root=address, **{**SETTINGS, "cache_dir": cache})
    results.put((data.fingerprint, items(data).sum().item()))


def test_processes_that_start_at_once_share_the_index_and_the_cache(server, shards, tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    shared = str(tmp_path / "shared")
    processes = [context.Process(target=build, args=(server.address, shared, results)) for _ in range(3)]
    for process in processes:
        process.start()
    found = {results.get() for _ in processes}
    for process in processes:
        process.join()
    local = shards(str(server.folder))
    assert found == {(local.fingerprint, items(local).sum().item())}
    assert len(list((tmp_path / "shared").glob("*-shards-*.npz"))) == 1


@pytest.mark.parametrize("fault", [fail(2), fail(2, status=429), break_off(2)])
def test_requests_that_fail_twice_are_repeated(server, shards, fault):
    data = shards(server.address, cache_dir=None)
    server.faults.append(fault)
    assert torch.equal(items(data), items(shards(str(server.folder))))


def test_an_address_that_stops_answering_is_a_sentence_and_goes_on_later(server, shards):
    data = shards(server.address, cache_dir=None, timeout=0.3, retries=1)
    assert data.train[0][1] == 0
    release = threading.Event()
    server.faults.append(stall(release))
    try:
        with pytest.raises(Unreachable, match=r"train-001\.tar does not answer \(2 tries, .* goes on once it answers"):
            data.train[5]
    finally:
        release.set()
    server.faults.clear()
    assert data.train[5][1] == 1


def test_an_error_in_a_worker_says_the_same(server, shards):
    data = shards(server.address, cache_dir=None, retries=0)
    server.faults.append(fail(99))
    with pytest.raises(Unreachable, match=r"train-000\.tar does not answer \(1 try"):
        list(DataLoader(data.train, batch_size=2, num_workers=1))


def test_a_shard_that_changed_at_the_address_is_refused_until_the_index_is_rebuilt(server, shards):
    before = shards(server.address).fingerprint
    write_tar(server.folder / "train-000.tar", samples(0, 4) | {"00000000.cls": b"1"})  # of the same length
    with pytest.raises(ValueError, match=r"train-000\.tar has changed since .*data\.index=rebuild"):
        shards(server.address)
    assert shards(server.address, index="rebuild").fingerprint != before
    path = server.folder / "train-000.tar"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"has 3000 bytes, and had 10240 .* truncated"):
        shards(server.address)
    with pytest.raises(ValueError, match=r"train-000\.tar is truncated"):
        shards(server.address, index="rebuild")


def test_missing_shards_and_addresses_are_named(server, shards):
    with pytest.raises(FileNotFoundError, match=r"train-002\.tar does not exist"):
        shards(f"{server.address}/train-{{000..002}}.tar")
    (server.folder / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no \.tar files .*ADDRESS/train-"):
        shards(f"{server.address}/empty")
    with pytest.raises(Unreachable, match="does not answer"):
        shards("http://127.0.0.1:9/shards", retries=0)
    server.faults.append(fail(99, status=403))
    with pytest.raises(Unreachable, match="refuses"):
        shards(f"{server.address}/train-{{000..001}}.tar", cache_dir=None)


def test_shards_in_memory_are_of_one_process(server, shards):
    files = remote.RemoteFiles("memory://shards-test", cache=None, cache_bytes=0, retries=0, timeout=5)
    for path in server.folder.glob("*.tar"):
        files.write(path.name, path.read_bytes())
    data = shards("memory://shards-test", cache_dir=None)
    assert data.fingerprint == shards(str(server.folder)).fingerprint
    for start in ("fork", "spawn"):
        with pytest.raises(ValueError, match="in the memory of one process"):
            list(DataLoader(data.train, num_workers=1, multiprocessing_context=start))


def test_shards_in_s3(server, shards, monkeypatch):
    """Needs the extra `test-s3`: a server of moto on this machine."""
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'ldbench[test-s3]'")
    moto = pytest.importorskip("moto.server", reason="moto is not installed: pip install 'ldbench[test-s3]'")
    server_of_s3 = moto.ThreadedMotoServer(port=0)
    server_of_s3.start()
    try:
        host, port = server_of_s3.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        check_s3(server, shards)
    finally:
        server_of_s3.stop()


def check_s3(server: RangeServer, shards) -> None:
    import s3fs

    s3fs.S3FileSystem(skip_instance_cache=True).mkdir("bucket")
    files = remote.RemoteFiles("s3://bucket/folder", cache=None, cache_bytes=0, retries=1, timeout=20)
    for path in server.folder.glob("*.tar"):
        files.write(path.name, path.read_bytes())
    local, there = shards(str(server.folder)), shards("s3://bucket/folder")
    assert there.fingerprint == local.fingerprint
    loader = DataLoader(shards("s3://bucket/folder", cache_dir=None).train, batch_size=2, num_workers=2)
    assert torch.equal(torch.cat([images for images, _ in loader]), items(local))
    write_tar(server.folder / "train-000.tar", samples(0, 4) | {"00000000.cls": b"1"})
    files.write("train-000.tar", (server.folder / "train-000.tar").read_bytes())
    with pytest.raises(ValueError, match=r"data\.index=rebuild"):
        shards("s3://bucket/folder")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        shards("s3://bucket/folder/train-{000..009}.tar")
    with pytest.raises(Unreachable):
        shards("s3://no-such-bucket/folder")
