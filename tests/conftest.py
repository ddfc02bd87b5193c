"""What many tests share: a tokenizer so small that all its stages train in a second."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

import ldbench

SMALL = [
    "tokenizer.model.width=16",
    "tokenizer.model.depth=1",
    "tokenizer.model.num_heads=2",
    "tokenizer.model.decoder_width=16",
    "tokenizer.model.decoder_depth=1",
    "tokenizer.model.decoder_num_heads=2",
    "tokenizer.stages.pretrain.max_steps=6",
    "tokenizer.stages.pretrain.batch_size=8",
    "tokenizer.stages.pretrain.optimizer.warmup_steps=2",
    "tokenizer.stages.tune.max_steps=4",
    "tokenizer.stages.tune.batch_size=8",
    "tokenizer.stages.tune.optimizer.warmup_steps=2",
    "trainer.accelerator=cpu",
    "trainer.threads=1",
    "callbacks.checkpoint.every=2",
    "data.subset=0.1",
    "protocol=default",  # the one of the digits trains its extractor first
]


@pytest.fixture
def small_overrides() -> list[str]:
    """What the command line needs for a tiny VMAE."""
    return list(SMALL)


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., DictConfig]:
    """Composes the config of a tiny VMAE under a root of its own; overrides are added to it."""

    def compose(*overrides: str) -> DictConfig:
        return ldbench.compose("train", [*SMALL, f"paths.root={tmp_path}", *overrides])

    return compose


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Tests are small: one thread is faster, and keeps their sums the same everywhere."""
    torch.set_num_threads(1)
