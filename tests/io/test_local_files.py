"""Files below a folder, with the methods of files at an address."""

from pathlib import Path

import pytest

from ldbench.io.local_files import LocalFiles


def test_files_are_listed_read_and_written(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    for name in ("train/a-1.tar", "train/a-0.tar", "b.tar", ".hidden.tar"):
        files.write(name, name.encode())
    assert files.list("*.tar") == ["b.tar"]
    assert files.list("train/*.tar") == ["train/a-0.tar", "train/a-1.tar"]
    assert files.list("train/a-{0..2}.tar") == [f"train/a-{i}.tar" for i in range(3)]
    assert files.list("none/*.tar") == []
    assert files.size("b.tar") == 5
    assert files.read("b.tar", 2, 2) == b"ta"
    assert files.read("b.tar", 4, 9) == b"r"
    assert files.read_all("b.tar") == b"b.tar"
    assert files.exists("b.tar")
    files.remove("b.tar")
    files.remove("b.tar")
    assert not files.exists("b.tar")


def test_an_identity_changes_with_the_file(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    files.write("a", b"one")
    before = files.identity("a")
    assert files.identity("a") == before
    files.write("a", b"other")
    assert files.identity("a") != before


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.tar does not exist"):
        LocalFiles(tmp_path).size("none.tar")


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = LocalFiles(tmp_path)
    files.write("a", b"before")

    def full(self: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"No space left on device: .*/a'"):
        files.write("a", b"after")
    assert files.read_all("a") == b"before"
