"""A cell by two processes: however they are started, and wherever one of them was killed, it ends in the same files."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

GENERATOR = [
    "generator=sit",
    "generator.max_steps=4",
    "generator.batch_size=8",
    "generator.ema_decays=[0.9]",
    "generator.exported_decay=0.9",
]
GENERATOR += ["generator.backbone.width=24", "generator.backbone.depth=1", "generator.backbone.num_heads=2", "jobs={}"]
TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node=2"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def words(small_overrides: list[str]) -> list[str]:
    return [
        "-m",
        "ldbench.train",
        *small_overrides,
        *GENERATOR,
        "tokenizer.stages.pretrain.max_steps=60",
        "tokenizer.stages.pretrain.batch_size=8",
    ]


@pytest.fixture(scope="module")
def unbroken(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a cell whose two processes one command started."""
    root = tmp_path_factory.mktemp("unbroken")
    subprocess.run([sys.executable, *words, "trainer=ddp", f"paths.root={root}"], check=True, timeout=600)
    return root


def weights(root: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in root.glob("artifacts/*/*/weights.safetensors")}


def test_torchrun_makes_the_same_files(words: list[str], unbroken: Path, tmp_path: Path) -> None:
    command = [sys.executable, *TORCHRUN, *words, "trainer.devices=2", f"paths.root={tmp_path}"]
    done = subprocess.run(command, check=True, timeout=600, stderr=subprocess.PIPE, text=True)
    assert "reducer" not in done.stderr, "DDP's warnings say nothing that a user could act on"
    assert len(weights(unbroken)) == 2
    assert weights(tmp_path) == weights(unbroken)
    for root in (unbroken, tmp_path):
        assert len(list(root.glob("runs/*/log/version_*"))) == 2, "one log for each training: followers write none"


def test_one_process_makes_the_same_numbers_up_to_rounding(words: list[str], unbroken: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, *words, f"paths.root={tmp_path}"], check=True, timeout=600)
    one, two = (
        json.loads(next(root.glob("records/reconstruct-*.json")).read_text())["metrics"]
        for root in (tmp_path, unbroken)
    )
    for name, estimate in one.items():
        # weights that no image depends on may lie elsewhere
        assert two[name]["value"] == pytest.approx(estimate["value"], rel=1e-6), name


def test_a_killed_process_ends_the_command_which_then_goes_on_to_the_same_files(
    words: list[str], unbroken: Path, tmp_path: Path
) -> None:
    command = [sys.executable, *words, "trainer=ddp", f"paths.root={tmp_path}"]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("runs/*/checkpoints/pretrain.ckpt")):
        assert running.poll() is None
        time.sleep(0.02)
    (child,) = map(int, Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split())
    os.kill(child, signal.SIGKILL)
    _, output = running.communicate(timeout=120)
    assert running.returncode == 1
    assert f"Process 1 of this training (pid {child}) was killed by SIGKILL" in output
    assert not weights(tmp_path), "it was killed before its end"
    subprocess.run(command, check=True, timeout=600)
    assert weights(tmp_path) == weights(unbroken)
