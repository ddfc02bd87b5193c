"""The trainer's settings: which are refused, and which count in a digest."""

from collections.abc import Callable

import pytest
from omegaconf import DictConfig

from ldbench.pipeline import trainer_settings
from ldbench.pipeline.tokenizer_plan import plan_tokenizer

Compose = Callable[..., DictConfig]
TWO = ("trainer.devices=2",)


@pytest.mark.parametrize("override", ["trainer.adaptive=local", "trainer.num_nodes=2"])
def test_how_several_processes_share_a_batch_counts(small: Compose, override: str) -> None:
    assert plan_tokenizer(small(*TWO, override)).digest != plan_tokenizer(small(*TWO)).digest


def test_it_does_not_count_for_one_process(small: Compose) -> None:
    assert plan_tokenizer(small("trainer.adaptive=local")).digest == plan_tokenizer(small()).digest
    assert trainer_settings.numeric_settings(small()) == {key: small().trainer[key] for key in trainer_settings.NUMERIC}


def test_processes_of_all_nodes_share_a_batch(small: Compose) -> None:
    assert trainer_settings.world_size(small("trainer.devices=2", "trainer.num_nodes=4")) == 8
    with pytest.raises(ValueError, match="which 8 processes cannot share evenly"):
        plan_tokenizer(small("trainer.devices=2", "trainer.num_nodes=4", "tokenizer.stages.tune.batch_size=4"))


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("trainer.adaptive=both", r"Unknown trainer\.adaptive 'both'\. Choose global or local"),
        ("+trainer.nodes=2", r"There is no config key trainer\.nodes\. Known: accelerator, adaptive"),
    ],
)
def test_what_makes_no_sense_is_refused(small: Compose, override: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        trainer_settings.validate_trainer(small(override))
