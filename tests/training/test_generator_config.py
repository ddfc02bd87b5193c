"""The settings of a generator's training: errors name the config key."""

import pytest

from ldbench.training.generator_config import GeneratorTrainingConfig
from ldbench.training.optimizer import AdamW

RATES = {"lr": 1e-2, "min_lr": 0.0, "schedule": "constant", "warmup_steps": 0, "warmup_lr": None}
OPTIMIZER = AdamW(**RATES, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0, clip_norm=None)
NUMBERS = {"max_steps": 10, "batch_size": 4, "accumulate": 1, "ema_decays": [0.9, 0.99], "exported_decay": 0.9}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_steps": -1}, r"generator\.max_steps must be a whole number of at least 0, got -1"),
        ({"batch_size": 2.5}, r"generator\.batch_size must be a whole number"),
        ({"accumulate": True}, r"generator\.accumulate must be a whole number"),
        ({"ema_decays": [0.9, 1.0]}, r"generator\.ema_decays must be different numbers between 0 and 1"),
        ({"ema_decays": [0.9, 0.9]}, r"generator\.ema_decays must be different numbers"),
        ({"exported_decay": 0.5}, r"must be one of generator\.ema_decays, \[0\.9, 0\.99\], or null"),
    ],
)
def test_numbers_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        GeneratorTrainingConfig(**{**NUMBERS, **changes}, optimizer=OPTIMIZER)


def test_it_reads_its_own_keys_of_a_generators_node_and_refuses_unknown_ones():
    beside = {
        "name": "sit",
        "weights": None,
        "stats": None,
        "class_dropout": 0.1,
        "backbone": {},
        "optimizer": {"lr": 1.0},
    }
    assert GeneratorTrainingConfig.from_config({**NUMBERS, **beside}, optimizer=OPTIMIZER) == GeneratorTrainingConfig(
        **NUMBERS, optimizer=OPTIMIZER
    )
    for key, message in (("max_stepz", "Did you mean max_steps?"), ("zzz", "Known: accumulate")):
        with pytest.raises(ValueError, match=f"There is no config key generator.{key}.*{message}".replace("?", r"\?")):
            GeneratorTrainingConfig.from_config({**NUMBERS, key: 1}, optimizer=OPTIMIZER)


def test_averages_may_be_left_out():
    assert (
        GeneratorTrainingConfig(
            **NUMBERS | {"ema_decays": [], "exported_decay": None}, optimizer=OPTIMIZER
        ).exported_decay
        is None
    )
