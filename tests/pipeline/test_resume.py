"""kill -9 at any moment, then the same command: the weights are those of a run that was never broken off.

More of it in `tests/faults`.
"""

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from ldbench.pipeline import tokenizer_training
from ldbench.pipeline.tokenizer_plan import plan_tokenizer

Compose = Callable[..., DictConfig]

KILLS = 3  # for each stage
LONGER = (
    "tokenizer.stages.pretrain.max_steps=60",
    "tokenizer.stages.pretrain.accumulate=2",
    "tokenizer.stages.pretrain.ema_decay=0.95",
    "tokenizer.stages.tune.max_steps=60",
    "callbacks.checkpoint.every=7",
    "callbacks.reconstructions.every=0",
    "trainer.log_every=1",
)


def newest(run: Path) -> float:
    """When the run last wrote a checkpoint or ended a stage."""
    return max(
        (path.stat().st_mtime for path in [*run.glob("checkpoints/*.ckpt"), *run.glob("stages/*.safetensors")]),
        default=0.0,
    )


def train(cfg: DictConfig) -> None:
    torch.set_num_threads(1)
    tokenizer_training.train_stages(plan_tokenizer(cfg))


def kill_in_the_middle(cfg: DictConfig, run: Path, rng: random.Random) -> bool:
    """Trains in its own process and kills it soon after its next checkpoint; False when it ended first."""
    before = newest(run)
    child = multiprocessing.get_context("fork").Process(target=train, args=(cfg,))
    child.start()
    assert child.pid is not None
    deadline = time.monotonic() + 120
    while child.is_alive() and newest(run) <= before and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(rng.uniform(0.0, 0.12))
    alive = child.is_alive()
    if alive:
        os.kill(child.pid, signal.SIGKILL)
    child.join()
    return alive and child.exitcode == -signal.SIGKILL


@pytest.mark.slow
def test_killed_again_and_again_it_ends_in_the_same_bits(small: Compose, tmp_path: Path) -> None:
    expected = tokenizer_training.train_stages(
        plan_tokenizer(small(*LONGER, f"paths.root={tmp_path / 'unbroken'}"))
    ).state_dict()
    cfg = small(*LONGER, f"paths.root={tmp_path / 'broken'}")
    planned = plan_tokenizer(cfg)
    rng = random.Random(0)
    kills = {"pretrain": 0, "tune": 0}
    while sum(kills.values()) < 2 * KILLS:
        stage = "tune" if (planned.run_folder / "stages" / "pretrain.safetensors").exists() else "pretrain"
        if kills[stage] >= KILLS:  # let this stage come to its end
            if stage == "tune":
                break
            finish_stage(cfg, planned.run_folder, "pretrain")
            continue
        if not kill_in_the_middle(cfg, planned.run_folder, rng):
            break
        kills[stage] += 1
    assert kills["pretrain"] >= 2, kills
    assert kills["tune"] >= 2, kills
    ended = tokenizer_training.train_stages(planned).state_dict()
    assert all(torch.equal(expected[key], ended[key]) for key in expected)


def finish_stage(cfg: DictConfig, run: Path, stage: str) -> None:
    """Lets a process train until a stage is done, then kills it."""
    child = multiprocessing.get_context("fork").Process(target=train, args=(cfg,))
    child.start()
    assert child.pid is not None
    while child.is_alive() and not (run / "stages" / f"{stage}.safetensors").exists():
        time.sleep(0.002)
    os.kill(child.pid, signal.SIGKILL)
    child.join()


@pytest.mark.slow
def test_a_checkpoint_cut_short_costs_steps_and_no_bits(
    small: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = (*LONGER, "tokenizer.stages.tune.max_steps=2")
    expected = tokenizer_training.train_stages(
        plan_tokenizer(small(*options, f"paths.root={tmp_path / 'unbroken'}"))
    ).state_dict()
    planned = plan_tokenizer(small(*options))
    tokenizer_training.train_stages(planned)
    (planned.run_folder / "stages" / "pretrain.safetensors").unlink()
    (planned.run_folder / "stages" / "tune.safetensors").unlink()
    newest_one = planned.run_folder / "checkpoints" / "pretrain.ckpt"
    newest_one.write_bytes(newest_one.read_bytes()[:-2000])
    ended = tokenizer_training.train_stages(planned).state_dict()
    assert "Using the one before it" in caplog.text
    assert all(torch.equal(expected[key], ended[key]) for key in expected)
