"""The loss has its closed forms, and trains a tokenizer from the command line."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from ldbench_example.example import Example

Y = torch.zeros(2, dtype=torch.int64)


def build() -> Example:
    return Example(weight=1.0, start=0, warmup=0)


def test_a_constant_error_has_no_edges():
    images = torch.rand(2, 3, 8, 8)
    assert build()(images, SimpleNamespace(images=images + 0.5), Y).item() == pytest.approx(0, abs=1e-6)


def test_a_slope_is_measured():
    images = torch.zeros(2, 3, 8, 8)
    slope = 0.1 * torch.arange(8.0).expand(2, 3, 8, 8)  # along the width alone
    assert build()(images, SimpleNamespace(images=slope), Y).item() == pytest.approx(0.1)


def test_it_trains(tmp_path):
    command = [sys.executable, "-m", "ldbench.train", "tokenizer=ae", "+loss@tokenizer.losses.example=example"]
    command += ["data.subset=0.1", "trainer.limit_steps=2", f"paths.root={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
