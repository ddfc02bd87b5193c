"""Files at addresses: ranges, names, identities, retries, the cache, processes."""

import multiprocessing
import os
import pickle
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
from tests.http_server import RangeServer, break_off, fail, serve, stall, without_ranges

from ldbench.io import remote
from ldbench.io.block_cache import BLOCK, BlockCache
from ldbench.io.braces import expand_braces
from ldbench.io.remote import Missing, RemoteFiles, Unreachable, is_remote

CONTENT = os.urandom(3 * BLOCK + 1234)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RangeServer]:
    """A server of one large file and two small ones."""
    folder = tmp_path / "served"
    (folder / "train").mkdir(parents=True)
    (folder / "large.bin").write_bytes(CONTENT)
    for name in ("train/a-0.tar", "train/a-1.tar"):
        (folder / name).write_bytes(name.encode())
    with serve(folder) as server:
        yield server


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.01)


def opened(address: str, cache: Path | None = None, *, retries: int = 2, timeout: float = 5, size: int = 64 * BLOCK):
    return RemoteFiles(address, cache=cache, cache_bytes=size, retries=retries, timeout=timeout)


def test_an_address_of_a_protocol_is_remote():
    assert all(map(is_remote, ("s3://b/f", "https://host/x", "memory://x", "gs://b")))
    assert not any(map(is_remote, ("/data", "data/x", "~/x", "C:\\x", "C:/x", "a{0..2}.tar")))


def test_braces_stand_for_names():
    assert expand_braces("a-{008..011}.tar") == ["a-008.tar", "a-009.tar", "a-010.tar", "a-011.tar"]
    assert expand_braces("{x,y}-{0..1}") == ["x-0", "x-1", "y-0", "y-1"]
    assert expand_braces("plain.tar") == ["plain.tar"]
    with pytest.raises(ValueError, match=r"\{3\.\.1\} in a\{3\.\.1\} stands for no names"):
        expand_braces("a{3..1}")
    with pytest.raises(ValueError, match="neither"):
        expand_braces("a{b}")


@pytest.mark.parametrize("cached", [False, True])
def test_ranges_are_those_of_the_file(server, tmp_path, cached):
    files = opened(server.address, tmp_path / "cache" if cached else None)
    assert files.size("large.bin") == len(CONTENT)
    for _ in range(2):
        for offset, length in ((0, 10), (BLOCK - 5, 10), (5, 3 * BLOCK), (len(CONTENT) - 7, 100), (len(CONTENT), 5)):
            assert files.read("large.bin", offset, length) == CONTENT[offset : offset + length]
    assert files.read_all("large.bin") == CONTENT


def test_names_are_listed_by_pattern(server):
    files = opened(server.address)
    assert files.list("train/*.tar") == ["train/a-0.tar", "train/a-1.tar"]
    assert files.list("*.bin") == ["large.bin"]
    assert files.list("train/a-{0..2}.tar") == [f"train/a-{i}.tar" for i in range(3)]
    assert files.exists("train/a-1.tar")
    assert not files.exists("train/a-2.tar")


def test_an_identity_changes_with_the_file_and_with_nothing_else(server):
    before = opened(server.address).identity("train/a-0.tar")
    assert opened(server.address).identity("train/a-0.tar") == before
    (server.folder / "train/a-0.tar").write_bytes(b"train/a-9.tar")  # of the same length
    assert opened(server.address).identity("train/a-0.tar") != before


def test_what_is_written_is_read(server):
    files = opened(server.address)
    files.write("new.bin", b"content")
    assert files.read_all("new.bin") == b"content"
    memory = opened("memory://ldbench-test")
    memory.write("folder/new.bin", b"content")
    assert memory.list("folder/*") == ["folder/new.bin"]
    assert memory.read("folder/new.bin", 2, 3) == b"nte"


@pytest.mark.parametrize("fault", [fail(2), fail(2, status=429), break_off(2)])
def test_what_fails_twice_is_read_by_the_third_try(server, fault):
    files = opened(server.address)
    files.size("large.bin")
    server.faults.append(fault)
    assert files.read("large.bin", 100, 50) == CONTENT[100:150]


@pytest.mark.parametrize("fault", [fail(99), break_off(99)])
def test_an_address_that_keeps_failing_is_a_sentence(server, fault):
    files = opened(server.address)
    files.size("large.bin")
    server.faults.append(fault)
    with pytest.raises(
        Unreachable, match=rf"{server.address}/large.bin does not answer \(3 tries, \d+ s\): .+ goes on"
    ):
        files.read("large.bin", 100, 50)


def test_a_server_that_fails_from_the_start_is_not_taken_for_a_missing_file(server):
    server.faults.append(fail(99))
    with pytest.raises(Unreachable, match="does not answer"):
        opened(server.address).size("large.bin")
    server.server_close()
    with pytest.raises(Unreachable, match="does not answer"):
        opened("http://127.0.0.1:9").size("large.bin")


def test_a_server_that_says_nothing_is_left_after_the_timeout(server):
    files = opened(server.address, retries=1, timeout=0.3)
    files.size("large.bin")
    release = threading.Event()
    server.faults.append(stall(release))
    start = time.monotonic()
    try:
        with pytest.raises(Unreachable, match=r"\(2 tries, .*it took too long"):
            files.read("large.bin", 100, 50)
        assert time.monotonic() - start < 10
    finally:
        release.set()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (fail(99, status=403), r"large.bin refuses \(1 try, 0 s\): .*403"),
        (fail(99, status=404), r"large.bin does not exist \(1 try"),
        (without_ranges, r"sends the whole file where a part is asked for"),
    ],
)
def test_a_final_answer_is_not_asked_for_again(server, fault, message):
    files = opened(server.address)
    files.size("large.bin")
    server.faults.append(fault)
    with pytest.raises(Unreachable, match=message):
        files.read("large.bin", 100, 50)


class NoCredentialsError(Exception):
    """As botocore raises it."""


def test_missing_credentials_are_not_asked_for_again(monkeypatch):
    files = opened("memory://ldbench-test")

    def refuse(*_: object, **__: object) -> None:
        raise NoCredentialsError("Unable to locate credentials")

    monkeypatch.setattr(files._filesystem(), "info", refuse, raising=False)
    with pytest.raises(Unreachable, match=r"refuses \(1 try, 0 s\): Unable to locate credentials.*the credentials"):
        files.size("x")


def test_a_missing_file_is_named(server):
    with pytest.raises(Missing, match=rf"{server.address}/none.bin does not exist"):
        opened(server.address).read("none.bin", 0, 1)
    assert issubclass(Missing, FileNotFoundError)


def test_errors_pass_between_processes():
    error = pickle.loads(pickle.dumps(Missing("A sentence.")))
    assert (type(error), str(error)) == (Missing, "A sentence.")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("folder", "no address of a protocol"),
        ("nothing-such://x", "protocol that fsspec does not know"),
        ("https://me:secret@host/x", r"address at host holds a password"),
    ],
)
def test_an_address_that_cannot_be_opened_is_a_sentence(address, message):
    with pytest.raises(ValueError, match=message) as raised:
        opened(address)
    assert "secret" not in str(raised.value)


def test_a_missing_package_is_named(monkeypatch):
    def missing(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "filesystem", missing)
    with pytest.raises(ValueError, match=r"Install s3fs.*pip install 'ldbench\[remote\]'"):
        opened("s3://bucket/folder")


def test_what_was_read_is_not_asked_for_again(server, tmp_path):
    files = opened(server.address, tmp_path / "cache")
    files.read("large.bin", 10, 20)
    sent = server.sent
    assert sent == BLOCK
    assert opened(server.address, tmp_path / "cache").read("large.bin", 500, 20) == CONTENT[500:520]
    assert server.sent == sent


def test_a_replaced_file_is_not_read_from_the_cache(server, tmp_path):
    opened(server.address, tmp_path / "cache").read_all("train/a-0.tar")
    (server.folder / "train/a-0.tar").write_bytes(b"train/a-9.tar")
    assert opened(server.address, tmp_path / "cache").read_all("train/a-0.tar") == b"train/a-9.tar"


def test_a_damaged_block_is_read_again(server, tmp_path):
    cache = tmp_path / "cache"
    opened(server.address, cache).read("large.bin", 0, 10)
    (block,) = cache.rglob("*.block")
    for damaged in (b"", block.read_bytes()[:-100], bytes(BLOCK + 4)):
        block.write_bytes(damaged)
        assert opened(server.address, cache).read("large.bin", 0, 10) == CONTENT[:10]


def stored_bytes(cache: Path) -> int:
    return sum(path.stat().st_size for path in cache.rglob("*.block"))


def test_the_cache_keeps_its_limit_and_what_was_used_last(tmp_path):
    cache = BlockCache(tmp_path, max_bytes=10 * BLOCK)
    for number in range(9):
        cache.put("key", number, bytes(BLOCK))
        os.utime(next(tmp_path.rglob(f"*-{number}.block")), (number, number))
    assert cache.get("key", 0) == bytes(BLOCK)  # used again
    for number in range(9, 30):
        cache.put("key", number, bytes(BLOCK))
        assert stored_bytes(tmp_path) <= 10 * BLOCK
        if number == 9:
            assert cache.get("key", 0) is not None
            assert cache.get("key", 1) is None


def test_threads_may_store_the_same_block(tmp_path, caplog):
    cache = BlockCache(tmp_path, max_bytes=50 * BLOCK)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: cache.put("key", 0, bytes(BLOCK)), range(40)))
    assert cache.get("key", 0) == bytes(BLOCK)
    assert not caplog.records


def test_what_a_killed_process_was_writing_is_removed(tmp_path):
    BlockCache(tmp_path, max_bytes=2 * BLOCK).put("key", 0, bytes(BLOCK))
    (block,) = tmp_path.rglob("*.block")
    abandoned, own = (block.with_name(f"{block.name}.{pid}.1.tmp") for pid in (2**22 + 1, os.getpid()))
    abandoned.touch()
    own.touch()
    BlockCache(tmp_path, max_bytes=2 * BLOCK).put("key", 1, bytes(BLOCK))
    assert (abandoned.exists(), own.exists()) == (False, True)


def put_many(folder: Path, start: int) -> None:
    cache = BlockCache(folder, max_bytes=5 * BLOCK)
    for number in range(start, start + 20):
        cache.put("key", number, bytes([number]) * BLOCK)
        assert cache.get("key", number) in (None, bytes([number]) * BLOCK)  # None: another process has removed it


def test_processes_and_threads_share_a_cache(tmp_path):
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda start: put_many(tmp_path, start), (0, 20, 40)))
    processes = [multiprocessing.get_context("fork").Process(target=put_many, args=(tmp_path, i)) for i in (60, 80)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert stored_bytes(tmp_path) <= 5 * BLOCK
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_cache_that_cannot_be_written_is_left_out_with_a_warning(server, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    files = opened(server.address, tmp_path / "file" / "cache")
    assert files.read_all("large.bin") == CONTENT
    assert files.read("large.bin", 5, 5) == CONTENT[5:10]
    assert len([record for record in caplog.records if "what is read is not kept" in record.message]) == 1
    with pytest.raises(ValueError, match="smaller than a block"):
        BlockCache(tmp_path, max_bytes=100)


def read_in_child(files: RemoteFiles, results) -> None:
    try:
        results.put(files.read("large.bin", 100, 50) == CONTENT[100:150])
    except ValueError as error:
        results.put(str(error))


def test_a_forked_process_reads_by_its_own_connections(server):
    files = opened(server.address)
    files.read("large.bin", 0, 10)  # a connection of this process
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    processes = [context.Process(target=read_in_child, args=(files, results)) for _ in range(3)]
    for process in processes:
        process.start()
    assert [results.get() for _ in processes] == [True] * 3
    assert files.read("large.bin", 10, 10) == CONTENT[10:20]
    for process in processes:
        process.join()


def test_an_object_may_be_pickled(server, tmp_path):
    files = opened(server.address, tmp_path / "cache")
    files.read("large.bin", 0, 10)
    assert pickle.loads(pickle.dumps(files)).read("large.bin", 10, 10) == CONTENT[10:20]


def test_memory_is_of_one_process(tmp_path):
    files = opened("memory://ldbench-test")
    files.write("large.bin", CONTENT)
    with pytest.raises(ValueError, match="in the memory of one process"):
        pickle.dumps(files)
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    process = context.Process(target=read_in_child, args=(files, results))
    process.start()
    assert "in the memory of one process" in results.get()
    process.join()
