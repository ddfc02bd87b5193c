"""Files are there whole or not at all, and their sums tell them apart."""

import hashlib
import json
from pathlib import Path

import pytest

from ldbench.core.files import digest, file_digest, write_json


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
