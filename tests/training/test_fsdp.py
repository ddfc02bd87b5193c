"""Sharded networks. The training of two processes: tests/test_shared_trainings.py."""

from collections.abc import Callable

import pytest
import torch
from omegaconf import DictConfig

from ldbench.pipeline import tokenizer_training
from ldbench.pipeline.tokenizer_plan import plan_tokenizer
from ldbench.training.fsdp import unsharded, unsharded_tensor


def test_what_has_no_shards_stays_as_it_is() -> None:
    state = {"weight": torch.rand(3), "steps": 7}
    assert unsharded(state) == state
    assert unsharded_tensor(state["weight"]) is state["weight"]


def test_a_tokenizer_is_not_sharded(small: Callable[..., DictConfig]) -> None:
    with pytest.raises(
        ValueError, match=r"trainer\.strategy=fsdp shards generators.* Train it first, by trainer\.strategy=ddp"
    ):
        tokenizer_training.train_tokenizer(plan_tokenizer(small("trainer.strategy=fsdp")))


def test_the_strategy_changes_no_digest(small: Callable[..., DictConfig]) -> None:
    assert (
        plan_tokenizer(small("trainer.strategy=fsdp", "trainer.devices=2")).digest
        == plan_tokenizer(small("trainer.devices=2")).digest
    )
