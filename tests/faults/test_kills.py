"""SIGKILL at random points of every stage, then the same command: the same bits, and nothing else."""

import random
from collections.abc import Callable
from dataclasses import asdict

import pytest
from tests.faults.chains import KILLS, Tally, chains
from tests.faults.stages import STAGES, Made


@pytest.mark.parametrize("stage", [stage.name for stage in STAGES])
def test_a_stage_killed_again_and_again_ends_as_one_that_never_was(
    stage: str, made: dict[str, Made], record_property: Callable[[str, object], None]
) -> None:
    row = Tally(stage, seed=f"{stage} 0")
    faults = list(chains(made[stage].done, row, random.Random(row.seed)))
    record_property("tally", asdict(row))
    assert faults == []
    assert row.within == KILLS
