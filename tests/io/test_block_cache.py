"""Blocks on disk that several users share."""

import os
from pathlib import Path

import pytest

from ldbench.io.block_cache import BLOCK, BlockCache


def test_a_block_of_another_user_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = BlockCache(tmp_path, max_bytes=5 * BLOCK)
    cache.put("key", 0, b"content")

    def refuse(path: Path) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(os, "utime", refuse)
    assert cache.get("key", 0) == b"content"
    assert cache.get("key", 1) is None


def test_the_lock_may_be_taken_by_every_user(tmp_path: Path) -> None:
    previous = os.umask(0o077)
    try:
        BlockCache(tmp_path, max_bytes=5 * BLOCK).put("key", 0, b"content")
        assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o666
    finally:
        os.umask(previous)
