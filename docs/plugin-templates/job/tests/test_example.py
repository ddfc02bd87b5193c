"""The measurement refuses what it cannot do, and is recorded with an interval from the command line."""

import json
import subprocess
import sys

import pytest
from ldbench_example.example import Example


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="at least 2, got 1"):
        Example.check({"num_images": 1, "batch_size": 64})


def test_it_is_measured(tmp_path):
    command = [sys.executable, "-m", "ldbench.run", "job=example", "tokenizer=identity", "job.num_images=20"]
    done = subprocess.run([*command, f"paths.root={tmp_path}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (record,) = (tmp_path / "records").glob("example-*.json")
    found = json.loads(record.read_text())["metrics"]["example/largest"]
    assert 0 < found["low"] < found["value"] < found["high"]
