"""A cache of whole files is bounded, verified and shared by processes."""

import multiprocessing
import os
from hashlib import sha256
from pathlib import Path

import pytest

from ldbench.io.file_cache import FileCache


def content(number: int) -> bytes:
    return bytes([number]) * 1000


def key(number: int) -> str:
    return sha256(content(number)).hexdigest()


def add(cache: FileCache, number: int) -> Path:
    return cache.add(key(number), 1000, [content(number)[:300], content(number)[300:]])


def test_a_file_is_stored_once_and_found_by_its_content(tmp_path: Path) -> None:
    cache = FileCache(tmp_path, max_bytes=5000)
    assert cache.find(key(1)) is None
    path = add(cache, 1)
    assert cache.find(key(1)) == path
    assert path.read_bytes() == content(1)
    assert cache.add(key(1), 1000, iter(lambda: pytest.fail("read again"), None)) == path
    cache.remove(key(1))
    assert cache.find(key(1)) is None


def test_the_least_recently_used_files_make_room(tmp_path: Path) -> None:
    cache = FileCache(tmp_path, max_bytes=3500)
    for number in range(3):
        os.utime(add(cache, number), (number + 1, number + 1))
    cache.find(key(0))
    add(cache, 3)
    assert [number for number in range(4) if cache.find(key(number))] == [0, 2, 3]
    assert sum(path.stat().st_size for path in tmp_path.glob("*/*.whole")) <= 3500


def test_other_content_and_broken_reading_leave_nothing(tmp_path: Path) -> None:
    cache = FileCache(tmp_path, max_bytes=3500)

    def breaks():
        yield content(1)[:10]
        raise OSError("gone")

    with pytest.raises(ValueError, match="its sha256 is"):
        cache.add(key(1), 1000, [content(2)])
    with pytest.raises(OSError, match="gone"):
        cache.add(key(1), 1000, breaks())
    assert not [path for path in tmp_path.glob("*/*") if path.suffix != ".lock"]


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    cache = FileCache(tmp_path, max_bytes=3500)
    left = add(cache, 1).with_name("0.whole.999999999.1.tmp")
    left.write_bytes(bytes(3000))
    add(cache, 2)
    assert not left.exists()
    assert cache.find(key(1))


def fill(folder: Path) -> None:
    for number in range(20):
        add(FileCache(folder, max_bytes=4000), number)


def test_several_processes_keep_the_limit(tmp_path: Path) -> None:
    processes = [multiprocessing.get_context("fork").Process(target=fill, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    stored = list(tmp_path.glob("*/*.whole"))
    assert 1 <= len(stored) <= 4
    assert {path.stem for path in stored} == {sha256(path.read_bytes()).hexdigest() for path in stored}
