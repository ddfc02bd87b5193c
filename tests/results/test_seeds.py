"""Spread over seeds: runs that differ in seeds alone stand together, and no others."""

import math
from dataclasses import replace

import pytest

from ldbench.core.protocols import Estimate
from ldbench.results.records import Record
from ldbench.results.seeds import over_seeds


def record(value: float, *, seed: int = 0, tokenizer_seed: int = 0, **said) -> Record:
    return Record(
        id=f"{seed}{tokenizer_seed}{value}",
        job="generate",
        subject={"tokenizer": "vmae", "generator": "sit", "data": "digits"},
        metrics={"gfd_digits": Estimate(value, value - 1, value + 1)},
        protocol={"name": "digits", "split": "test", "seed": seed, "sampling_seed": seed, "hash": str(seed)},
        artifacts={"tokenizer": f"vmae-{tokenizer_seed}"},
        config={"seed": seed, "tokenizer": {"seed": tokenizer_seed, "depth": 2}},
        environment={},
        created="",
        **said,
    )


def test_runs_that_differ_in_seeds_are_one_group_with_their_mean_and_spread() -> None:
    ((group, found),) = over_seeds([record(1.0), record(3.0, seed=1), record(5.0, tokenizer_seed=1)])
    assert len(group) == 3
    assert found["gfd_digits"].mean == pytest.approx(3.0)
    assert found["gfd_digits"].std == pytest.approx(2.0)
    assert found["gfd_digits"].values == (1.0, 3.0, 5.0)


def test_another_config_protocol_job_or_subject_is_another_group() -> None:
    first = record(1.0)
    others = [
        replace(first, config={**first.config, "tokenizer": {"seed": 0, "depth": 3}}),
        replace(first, protocol={**first.protocol, "split": "train"}),
        replace(first, job="reconstruct"),
        replace(first, subject={**first.subject, "generator": "dit"}),
    ]
    assert [len(group) for group, _ in over_seeds([first, *others])] == [1] * 5


def test_one_run_and_infinite_numbers_have_no_spread() -> None:
    assert over_seeds([record(1.0)])[0][1]["gfd_digits"].std is None
    found = over_seeds([record(math.inf), record(math.inf, seed=1)])[0][1]["gfd_digits"]
    assert (found.mean, found.std) == (math.inf, None)


def test_a_number_that_a_run_lacks_is_left_out() -> None:
    assert over_seeds([record(1.0), replace(record(2.0, seed=1), metrics={})])[0][1] == {}
