"""Atomic writes, and digests of files."""

import errno
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ldbench.io.files import atomic_write, digest, file_digest, write_json


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [2, {"c": 3, "d": None}]}) == digest({"b": [2, {"d": None, "c": 3}], "a": 1})
    assert digest({"a": 1}) != digest({"a": 1.5})


def test_the_sum_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert file_digest(tmp_path / "file") == hashlib.sha256(b"abc").hexdigest()


def test_json_that_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "numbers.json"
    write_json(path, {"b": 1, "a": 2})
    assert json.loads(path.read_text()) == {"a": 2, "b": 1}
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(path, {"a": float("nan")})
    assert [entry.name for entry in path.parent.iterdir()] == ["numbers.json"]
    assert json.loads(path.read_text()) == {"a": 2, "b": 1}


def test_what_fails_leaves_the_file_before_it_and_no_scratch_and_names_the_file(tmp_path: Path) -> None:
    write_json(tmp_path / "file.json", {"a": 1})

    def write_half() -> None:
        with atomic_write(tmp_path / "file.json") as scratch:
            scratch.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=str(tmp_path / "file.json")) as raised:
        write_half()
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(tmp_path / "file.json"))
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]
    assert json.loads((tmp_path / "file.json").read_text()) == {"a": 1}


def test_what_a_killed_process_left_of_a_file_goes_and_what_a_running_one_writes_stays(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as running:
        for pid in (gone.pid, running.pid):
            (tmp_path / f".file.json.{pid}.tmp").write_text("half")
        (tmp_path / f".other.json.{gone.pid}.tmp").write_text("half")
        write_json(tmp_path / "file.json", {})
        found = sorted(path.name for path in tmp_path.iterdir())
        running.communicate(b"\n")
    assert found == sorted([f".file.json.{running.pid}.tmp", f".other.json.{gone.pid}.tmp", "file.json"])
