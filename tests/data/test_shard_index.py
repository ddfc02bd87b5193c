"""The index of shards: read once, kept where it can be, locked, and checked before it is believed."""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from tests.small_containers import write_shards
from tests.small_shards import SETTINGS, shards

from ldbench.data import shard_index


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SETTINGS, "cache_dir", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "shards")


def index_of(folder: Path) -> Path:
    (path,) = folder.glob(".shards-*.npz")
    return path


def test_shards_are_read_once_for_the_index(folder, monkeypatch):
    before = shards(folder)
    monkeypatch.setattr(shard_index, "read_samples", lambda *_, **__: pytest.fail("reads the shard again"))
    assert shards(folder).fingerprint == before.fingerprint


def test_images_are_decoded_once(folder, tmp_path, monkeypatch):
    before = shards(folder, cache_dir=str(tmp_path / "cache"))
    monkeypatch.setattr("ldbench.data.encoded_images.read_image", lambda *_: pytest.fail("decodes again"))
    assert shards(folder, cache_dir=str(tmp_path / "cache")).fingerprint == before.fingerprint


def test_copied_shards_are_the_same_whatever_their_times(folder, tmp_path, monkeypatch):
    before = shards(folder)
    shutil.copytree(folder, tmp_path / "copy")
    later = time.time() + 100
    for path in (tmp_path / "copy").glob("*.tar"):
        os.utime(path, (later, later))
    monkeypatch.setattr(shard_index, "read_samples", lambda *_, **__: pytest.fail("reads the shard again"))
    assert shards(tmp_path / "copy").fingerprint == before.fingerprint
    monkeypatch.setattr(shard_index, "file_digest", lambda *_: pytest.fail("compares the content again"))
    assert shards(tmp_path / "copy").fingerprint == before.fingerprint


def test_the_lock_of_the_index_is_released(folder):
    shards(folder)
    found = FileLock(f"{index_of(folder)}.lock")
    held = shard_index.first_lock([index_of(folder)])
    assert held is not None
    with held[1]:
        assert held[1].lock.is_locked
    assert not held[1].lock.is_locked
    with found.acquire(timeout=1):
        assert found.is_locked


def test_the_lock_of_the_index_may_be_taken_by_every_user(folder):
    previous = os.umask(0o077)
    try:
        shards(folder)
        assert Path(f"{index_of(folder)}.lock").stat().st_mode & 0o777 == 0o666
    finally:
        os.umask(previous)


def test_the_index_lies_in_the_cache_where_the_folder_cannot_be_written(folder, tmp_path, monkeypatch):
    acquire = shard_index.FileLock.acquire

    def refused(self, *args, **kwargs):
        if str(folder) in self.lock_file:
            raise PermissionError(13, "Permission denied", self.lock_file)
        return acquire(self, *args, **kwargs)

    monkeypatch.setattr(shard_index.FileLock, "acquire", refused)
    before = shards(folder, cache_dir=str(tmp_path / "cache"))
    assert not list(folder.glob(".shards-*.npz"))
    assert len(list((tmp_path / "cache").glob("*-shards-*.npz"))) == 1
    monkeypatch.setattr(shard_index, "read_samples", lambda *_, **__: pytest.fail("reads the shard again"))
    assert shards(folder, cache_dir=str(tmp_path / "cache")).fingerprint == before.fingerprint


def test_without_a_cache_nothing_is_written(folder, tmp_path):
    before = sorted(folder.iterdir())
    assert shards(folder, cache_dir=None).fingerprint == shards(folder, cache_dir=None).fingerprint
    assert sorted(folder.iterdir()) == before
    assert not (tmp_path / "cache").exists()


def test_a_damaged_index_is_a_sentence(folder):
    shards(folder)
    whole = index_of(folder).read_bytes()
    for damaged in (b"", b"nothing", whole[: len(whole) // 2]):
        index_of(folder).write_bytes(damaged)
        with pytest.raises(ValueError, match=r"The index .*data\.index=rebuild"):
            shards(folder)
    assert shards(folder, index="rebuild").num_classes == 2
    assert shards(folder).num_classes == 2


def test_an_index_runs_no_code(folder, tmp_path):
    shards(folder)

    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "trap",))

    with np.load(index_of(folder)) as held:
        columns = dict(held)
    columns["key"] = np.array([Trap()] * len(columns["key"]), dtype=object)
    np.savez(index_of(folder), **columns)
    with pytest.raises(ValueError, match="cannot be used"):
        shards(folder)
    assert not (tmp_path / "trap").exists()


def test_an_index_that_points_elsewhere_is_refused(folder):
    shards(folder)
    found = shard_index.ShardIndex.from_file(index_of(folder))
    found.offset[0] = 10**9
    index_of(folder).write_bytes(found.to_bytes())
    with pytest.raises(ValueError, match="does not fit its shards"):
        shards(folder)


# --- faults
