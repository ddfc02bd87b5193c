"""The metric has its closed form, one number for each image, and is measured from the command line."""

import json
import subprocess
import sys

import torch
from ldbench_example.example import Example


def test_brighter_reconstructions_differ_by_their_levels():
    images = torch.full((2, 3, 8, 8), 100, dtype=torch.uint8)
    recon = torch.stack([images[0] + 7, images[1] - 3])
    assert Example(scale=2.0)(images, recon).tolist() == [14.0, 6.0]


def test_it_is_measured(tmp_path):
    command = [sys.executable, "-m", "ldbench.run", "job=reconstruct", "tokenizer=identity", "data.subset=0.1"]
    command += ["protocol=default", "protocol.reconstruction=[psnr,example]", f"paths.root={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (record,) = (tmp_path / "records").glob("reconstruct-*.json")
    assert json.loads(record.read_text())["metrics"]["example"]["value"] == 0
